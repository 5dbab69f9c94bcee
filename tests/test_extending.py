"""docs/extending.md, as it is written: every file is added, every command run; what is left out is said."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from aseqdip.config import REGISTRIES
from aseqdip.errors import UserError
from aseqdip.parts import Registry

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"`(\S+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"^python run\.py .*$", TEXT, re.MULTILINE)
PARTS = [name for name in FILES if name.endswith(".py")]


#: runs the commands it is given as arguments, one after another: PyTorch is imported once
DRIVER = """
import sys
from aseqdip.cli import main
for command in sys.argv[1:]:
    try:
        main(command.split())
        ended = 0
    except SystemExit as error:
        ended = error.code
    print(f"=== {ended} ===", flush=True)
"""


def run(commands: list[str], folder: Path, path: str) -> list[tuple[str, int]]:
    """What each of the page's commands prints, run in a folder, and its exit status."""
    tiny = "device=cpu precision=fp32 network.width=4"
    words = [c.partition("run.py ")[2] + ("" if "--help" in c else f" {tiny}") for c in commands]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, *words], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=600, check=True,
    )  # fmt: skip
    parts = re.split(r"=== (\d+) ===\n", result.stdout)
    return list(zip(parts[::2], map(int, parts[1::2]), strict=False))


def test_each_is_about_twenty_lines_of_one_file() -> None:
    assert len(PARTS) == 4
    for name in PARTS:
        code = [line for line in FILES[name].splitlines() if line and not line.startswith(("from", "import", '"""'))]
        assert len(code) <= 30, name


@pytest.mark.slow
def test_the_page_as_it_is_written(tmp_path: Path) -> None:
    for name in ("aseqdip", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pictures").mkdir()
    savemat(tmp_path / "pictures" / "a.mat", {"image": np.linspace(0, 1, 40 * 40).reshape(40, 40)})
    ended = run(COMMANDS, tmp_path, str(tmp_path))
    assert len(ended) == 7
    for command, (text, status) in zip(COMMANDS, ended, strict=True):
        assert status == 0, f"{command}: {text}"
        assert "1 done, 0 skipped, 0 failed" in text or "--help" in command
    assert "shrink                     weight of the sum of squared weights" in ended[1][0]
    folders = {path.parents[1].relative_to(tmp_path / "outputs").as_posix() for path in tmp_path.rglob("record.json")}
    tasks = {"/".join(folder.split("/")[:2]) for folder in folders}
    assert {"super_resolution/x4", "super_resolution/x2", "denoising/sigma15", "mri/accel4"} == tasks
    starts = [
        json.loads(path.read_text())["scores"]["start"]["psnr_db"]
        for path in (tmp_path / "outputs" / "super_resolution" / "x4").rglob("record.json")
    ]
    assert starts and min(starts) > 12, "its start image is as bright as the picture"
    assert all(path.read_bytes() == content for path, content in before.items()), "no file but the new ones"


@pytest.mark.slow
def test_by_entry_point(tmp_path: Path) -> None:
    package, info = tmp_path / "mypackage", tmp_path / "mypackage-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "weight_decay.py").write_text(FILES["aseqdip/methods/weight_decay.py"])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1\n")
    (table,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    entry = table.replace('[project.entry-points."aseqdip.methods"]', "[aseqdip.methods]").replace('"', "")
    (info / "entry_points.txt").write_text(f"{entry}broken = nowhere:Nothing\n")
    (well, status), (broken, refused) = run(
        [COMMANDS[0], "python run.py method=broken preset=smoke"], tmp_path, f"{ROOT}:{tmp_path}"
    )
    assert status == 0 and "1 done, 0 skipped, 0 failed" in well
    assert refused == 2 and "method=broken is said to be nowhere:Nothing, which cannot be imported" in broken


@pytest.fixture
def registry_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], type]]:
    """``registry_with("aseqdip/methods/x.py", text)``: the part in a file added to the package's folder."""
    added = []

    def load(name: str, text: str) -> type:
        path = Path(name)
        package = ".".join(path.parent.parts)
        (tmp_path / path.name).write_text(text)
        monkeypatch.setattr(import_module(package), "__path__", [*import_module(package).__path__, str(tmp_path)])
        (known,) = (r for r in REGISTRIES.values() if r.package == package)
        fresh: Registry[Any] = Registry(known.base, package, known.word, known.helpers[1:])
        added.append(f"{package}.{path.stem}")
        return fresh[path.stem]

    yield load
    for module in added:
        sys.modules.pop(module, None)


def without(text: str, start: str, lines: int = 1) -> str:
    """The text without the first line that begins so, and those after it."""
    kept = text.splitlines(keepends=True)
    first = next(i for i, line in enumerate(kept) if line.strip().startswith(start))
    return "".join(kept[:first] + kept[first + lines :])


@pytest.mark.parametrize("name", PARTS)
def test_the_files_are_parts(name: str, registry_with: Callable[[str, str], type]) -> None:
    assert registry_with(name, FILES[name]).__module__ == name.replace("/", ".").removesuffix(".py")


@pytest.mark.parametrize(
    ("name", "start", "lines", "message"),
    [
        *(
            (part, "name =", 1, rf"{Path(part).name} is to hold one class that extends \w+ and says name = ")
            for part in PARTS
        ),
        *((part, "title =", 1, rf"{Path(part).name}: \w+ does not say its title") for part in PARTS),
        ("aseqdip/methods/weight_decay.py", "def iterates", 11, "WeightDecay does not define iterates"),
        ("aseqdip/tasks/super_resolution.py", "def setting", 2, "SuperResolution does not define setting"),
        ("aseqdip/tasks/super_resolution.py", "def operator", 5, "SuperResolution does not define operator"),
        ("aseqdip/data/matlab.py", "def read", 6, "Matlab does not define read"),
        ("aseqdip/data/matlab.py", "suffixes", 1, "Matlab does not say its suffixes"),
        ("aseqdip/networks/plain.py", "def build", 2, "Plain does not define build"),
    ],
)
def test_what_is_missing_is_said(
    name: str, start: str, lines: int, message: str, registry_with: Callable[[str, str], type]
) -> None:
    text = without(FILES[name], start, lines).replace("    @property\n\n", "").replace("    @classmethod\n\n", "")
    with pytest.raises(UserError, match=message):
        registry_with(name, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'knob("weight of the sum of squared weights", 1e-3, low=0)',
            "1e-3",
            r"Options.shrink must say what it means and its default",
        ),
        (", 1e-3, low=0", "", r"Options.shrink must say what it means and its default: shrink: ... = knob"),
        ("    @dataclass\n    class Options", "    class Options", "WeightDecay.Options must be a dataclass"),
        ('name = "weight_decay"', 'name = "decay"', "says name = 'weight_decay', like its file; found WeightDecay"),
        ("(NetworkMethod)", "", "one class that extends Method .* found no such class"),
        ("import Tensor", "import Tensr", "weight_decay.py cannot be imported: .*Tensr"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(old: str, new: str, message: str, registry_with: Callable[[str, str], type]) -> None:
    text = FILES["aseqdip/methods/weight_decay.py"]
    assert old in text
    with pytest.raises(UserError, match=message):
        registry_with("aseqdip/methods/weight_decay.py", text.replace(old, new))


def test_what_a_base_keeps_in_no_name_of_its_own_hides_nothing(registry_with: Callable[[str, str], type]) -> None:
    text = FILES["aseqdip/networks/plain.py"]
    assert registry_with("aseqdip/networks/plain.py", text + "\n    def args(self) -> int:\n        return 1\n")


def test_a_method_that_a_value_hides_is_refused(registry_with: Callable[[str, str], type]) -> None:
    text = FILES["aseqdip/tasks/super_resolution.py"].replace("def first(", "def start(")
    with pytest.raises(UserError, match="SuperResolution.start would never be called: Task keeps a value of that"):
        registry_with("aseqdip/tasks/super_resolution.py", text)
