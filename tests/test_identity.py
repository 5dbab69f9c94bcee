"""What makes two runs the same: settings, content and code. What is not known to be the same is computed again."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Configure
from PIL import Image

from aseqdip import identity
from aseqdip.data import Sample
from aseqdip.data.base import Origin
from aseqdip.errors import UserError
from aseqdip.identity import code, content, file_digest, image_folder, problem, run_folder, settings
from aseqdip.run.runner import run

#: the file of a method of somebody's own
MINE = (
    '"""A method."""\n\nfrom aseqdip.methods.vanilla_dip import VanillaDIP\n\n\n'
    'class Mine(VanillaDIP):\n    """Words."""\n\n'
    '    name = "mine"\n    title = "Mine"\n    # a comment\n    factor = 1.0\n'
)


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str, int], Path]:
    """``picture("a/1.png", 3)``: the file of a random picture, the same for the same number; returns its folder."""

    def make(name: str, number: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (40, 40, 3))
        Image.fromarray(values.astype(np.uint8)).save(path)
        return path.parent

    return make


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (("images=3", "tracker=wandb", "checkpoint_minutes=5", "redo=true", "parallel=2", "data_root=/x"), True),
        (("views=18", "rho=3", "window=5", "network.skip=2"), True),  # of parts that were not chosen
        (("task=inpainting", "mask=center", "missing=0.5"), ("task=inpainting",)),  # without effect beside another
        *(((word,), False) for word in ("lam=2", "noise=0.1", "seed=1", "steps=6", "lr=1", "ema=0.9")),
        *(((word,), False) for word in ("network.width=9", "size=32", "residual=norm", "stop=wmv")),
        *(((word,), False) for word in ("network=skip", "coils=3", "N=1")),
    ],
)  # fmt: skip
def test_the_folder_depends_on_what_matters_alone(configure: Configure, words: tuple[str, ...], same: Any) -> None:
    other = () if isinstance(same, bool) else same
    assert (run_folder(configure(*words)) == run_folder(configure(*other))) is bool(same)


def test_a_direct_method_has_no_steps(configure: Configure) -> None:
    changed = configure("method=direct", "steps=2", "lr=5", "network=skip", "ema=0.5", "stop=wmv")
    assert run_folder(changed) == run_folder(configure("method=direct"))
    assert run_folder(configure("method=direct", "accel=8")) != run_folder(configure("method=direct"))


def test_measurements_and_the_rest_are_told_apart(configure: Configure) -> None:
    cfg = configure("stop=wmv", "seed=3")
    assert {"accel", "coils", "size", "truth", "dataset.reader"} <= set(problem(cfg))
    assert {"lam", "N", "steps", "window", "network", "network.width", "precision", "stop"} <= set(settings(cfg))
    assert not set(problem(cfg)) & set(settings(cfg))
    assert "seed" not in {**problem(cfg), **settings(cfg)}
    assert settings(configure("precision=auto"))["precision"] in ("bf16", "fp32"), (
        "as it is computed, not as it is said"
    )


def test_files_count_by_what_is_in_them(
    configure: Configure, picture: Callable[[str, int], Path], tmp_path: Path
) -> None:
    picture("mask.png", 1)
    words = ("task=inpainting", f"mask={tmp_path / 'mask.png'}")
    before = run_folder(configure(*words))
    picture("other/mask.png", 1)
    assert run_folder(configure("task=inpainting", f"mask={tmp_path / 'other/mask.png'}")) == before
    picture("mask.png", 2)
    assert run_folder(configure(*words)) != before


@pytest.mark.parametrize("words", [("method=pnp", "prior=mr"), ("task=inpainting", "mask=random")])
def test_a_name_is_no_file_of_the_folder_that_a_command_is_given_in(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    cfg = configure(*words, f"outputs={tmp_path}")
    before = run_folder(cfg)
    monkeypatch.chdir(tmp_path)
    (tmp_path / words[1].partition("=")[2]).mkdir()
    assert run_folder(cfg) == before


def test_a_pool_counts_by_what_is_in_it(configure: Configure, picture: Callable[[str, int], Path]) -> None:
    pool = picture("pool/a.png", 1)
    words = ("task=denoising", "method=ref_guided_dip")
    before = run_folder(configure(*words, f"pool={pool}"))
    assert before != run_folder(configure(*words))
    picture("pool/b.png", 2)
    assert run_folder(configure(*words, f"pool={pool}")) != before
    assert file_digest(str(pool)) != file_digest(str(picture("elsewhere/a.png", 1)))
    assert file_digest("center") == "center"
    os.mkfifo(pool / "pipe")
    with pytest.raises(UserError, match="is a pipe: expected a regular file"):
        file_digest(str(pool / "pipe"))


def test_the_data_sets_other_images_count_where_they_are_looked_at(
    configure: Configure, picture: Callable[[str, int], Path]
) -> None:
    folder = picture("set/a.png", 1)
    words = ("task=denoising", "dataset=folder", f"data_root={folder}")
    plain, guided = (run_folder(configure(*words, f"method={m}")) for m in ("vanilla_dip", "ref_guided_dip"))
    picture("set/b.png", 2)
    assert run_folder(configure(*words, "method=vanilla_dip")) == plain
    both = run_folder(configure(*words, "method=ref_guided_dip"))
    assert both != guided
    (folder / "outputs").mkdir()
    for name in ("notes.txt", "outputs/a.png"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    assert run_folder(configure(*words, "method=ref_guided_dip")) == both, "what it does not read is no image of it"


def test_content_is_every_array_that_was_read() -> None:
    image = torch.zeros(1, 4, 4)
    base = content(Sample("a", image=image))
    assert content(Sample("elsewhere", image=image.clone())) == base
    one = image.clone()
    one[0, 0, 0] = 1e-7
    others = [
        *(Sample("a", image=one), Sample("a", image=image.double()), Sample("a", image=torch.zeros(1, 2, 8))),
        *(Sample("a", image=image, mask=torch.ones(4).bool()), Sample("a", kspace=image)),
        *(Sample("a", kspace=image, maps=image), Sample("a", sinogram=image), Sample("a", image=image, hu_width=1.0)),
        *(Sample("a", sinogram=image, angles=torch.arange(4) * k) for k in (1, 2)),
    ]
    assert len({base, *map(content, others)}) == 1 + len(others)


def test_images_from_files_have_folders_of_their_own(configure: Configure) -> None:
    sample = Sample("x", image=torch.zeros(1, 4, 4))
    assert image_folder(configure(), "brain00", sample) == "brain00"
    own = configure("task=denoising", "dataset=folder")
    assert image_folder(own, "a", sample) == f"a-{content(sample)[:6]}"
    files = [Sample("x", image=sample.image, origin=Origin(digest=digest)) for digest in ("1", "2")]
    files.append(Sample("x", image=sample.image, origin=Origin(digest="2", high=2.0)))
    assert len({image_folder(own, "a", file) for file in files}) == 3, "the same image in another file or unit"
    assert len({content(file) for file in files}) == 1


def test_other_data_under_the_same_name_are_computed(
    configure: Configure, picture: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("task=denoising", "dataset=folder", "size=32", "network.width=4", "network.depth=2")
    for name, number in (("one", 1), ("two", 2), ("three", 1)):
        picture(f"{name}/data/a.png", number)
    monkeypatch.chdir(tmp_path / "one")
    assert len(run(configure(*words, "data_root=data")).records) == 1
    monkeypatch.chdir(tmp_path / "two")
    assert len(run(configure(*words, "data_root=data")).records) == 1, "another patient under the same relative path"
    again = run(configure(*words, f"data_root={tmp_path / 'three/data'}"))
    assert (len(again.records), again.skipped) == (0, ["a"]), "the same image elsewhere"
    shutil.copy(tmp_path / "two/data/a.png", tmp_path / "three/data/a.png")
    picture("three/data/a.png", 3)
    assert len(run(configure(*words, f"data_root={tmp_path / 'three/data'}")).records) == 1, "replaced"
    assert len(run(configure(*words, f"data_root={tmp_path / 'three/data'}", "redo=true")).records) == 1


def test_results_of_older_code_are_computed_again(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configure("size=32", "network.width=4", "coils=2")
    assert len(run(cfg).records) == 1
    assert run(cfg).skipped == ["brain00"]
    monkeypatch.setattr(identity, "RESULTS", identity.RESULTS + 1)
    assert len(run(cfg).records) == 1


def test_a_changed_part_is_computed_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg, found = configure("method=vanilla_dip"), []
    for number, (old, new) in enumerate(
        (("", ""), ("a comment", "another"), ("Words.", "Other words."), ("1.0", "2.0"))
    ):
        (tmp_path / f"mine{number}.py").write_text(MINE.replace(old, new))
        module = __import__(f"mine{number}")
        found.append(code(f"mine{number}"))
        assert identity.sources(replace(cfg, method=replace(cfg.method, part=module.Mine))) != identity.sources(cfg)
    assert found[0] == found[1] == found[2] != found[3]
    stopped = configure("method=vanilla_dip", "stop=wmv")
    assert identity.sources(stopped) != identity.sources(cfg), "the rule's code counts where there is one"
    assert code("aseqdip.methods.base") != code("aseqdip.methods.vanilla_dip")


def test_the_code_that_a_method_s_code_imports_counts(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own package, however it is written there, and what that imports in turn."""
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg, found = configure("method=vanilla_dip"), []
    for number, weight in enumerate((1, 1, 2)):
        package = tmp_path / f"theirs{number}"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "deeper.py").write_text(f"WEIGHT = {weight}\n")
        (package / "penalty.py").write_text("def penalty():\n    from .deeper import WEIGHT\n\n    return WEIGHT\n")
        (package / "mine.py").write_text(
            "from aseqdip.methods.vanilla_dip import VanillaDIP\nfrom . import penalty\n\n\n"
            'class Mine(VanillaDIP):\n    name = "mine"\n    title = "Mine"\n'
        )
        part = importlib.import_module(f"theirs{number}.mine").Mine
        found.append(identity.sources(replace(cfg, method=replace(cfg.method, part=part))))
    assert found[0] == found[1] != found[2]
    assert identity.helpers("aseqdip.methods.tv") == {"aseqdip.methods._classical"}


def test_code_that_is_edited_while_a_sweep_goes_on_is_not_what_runs(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edited").mkdir()
    for name in ("__init__", "one", "other"):
        (tmp_path / "edited" / f"{name}.py").write_text("" if name == "__init__" else MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    one, other = (importlib.import_module(f"edited.{name}").Mine for name in ("one", "other"))
    cfg = configure("method=vanilla_dip")
    identity.sources(replace(cfg, method=replace(cfg.method, part=one)))  # of the first job
    (tmp_path / "edited" / "other.py").write_text(MINE.replace("1.0", "2.0"))
    identity.sources(replace(cfg, method=replace(cfg.method, part=other)))
    assert code("edited.other") == code("edited.one")


def test_what_a_method_s_code_may_import_is_read_not_run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same whether it is imported yet or not, an empty package's beginning and a module of no package included."""
    package = tmp_path / "lab"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "sub/__init__.py").touch()
    (package / "sub/mod.py").write_text("WEIGHT = 1\n")
    (package / "gpu.py").write_text("raise RuntimeError('no driver')\n")
    (package / "old.py").write_text("print 'Python 2'\n")
    (package / "mine.py").write_text(
        "from aseqdip.methods.vanilla_dip import VanillaDIP\n\n\n"
        'class Mine(VanillaDIP):\n    name = "mine"\n    title = "Mine"\n\n'
        "    def weight(self):\n        from lab.sub import mod\n        from . import gpu, old\n"
        "        from ..above import nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    cfg = configure("method=vanilla_dip")
    cfg = replace(cfg, method=replace(cfg.method, part=importlib.import_module("lab.mine").Mine))
    found, before = [], set(sys.modules)

    def sources() -> str:
        identity._source.cache_clear()
        identity._read.cache_clear()
        return identity.sources(cfg)

    found.append(sources())
    assert identity.helpers("lab.mine") == {"lab", "lab.gpu", "lab.old", "lab.sub", "lab.sub.mod"}
    assert not {name for name in set(sys.modules) - before if name.startswith("lab")}
    importlib.import_module("lab.sub.mod")
    found.append(sources())
    (package / "sub/__init__.py").write_text("# a comment\n")
    found.append(sources())
    assert len(set(found)) == 1
    (package / "sub/mod.py").write_text("WEIGHT = 2\n")
    assert sources() != found[0]
