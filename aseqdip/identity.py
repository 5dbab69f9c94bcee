"""What makes two runs the same: every knob of their parts, the parts' code, the content of their files. Fails safe.

What is not known to be without effect counts: a knob that somebody forgot computes again instead of taking another
result for its own. Only a knob declared ``result=False`` is left out.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import numpy as np

from aseqdip.config import Config, idle_knobs, in_force, make_task, value_of
from aseqdip.data._files import bytes_digest
from aseqdip.data.base import FileReader, Sample
from aseqdip.engine import pick_device, pick_precision
from aseqdip.methods import METHODS
from aseqdip.networks import NETWORKS
from aseqdip.priors import shipped
from aseqdip.priors.published import PUBLISHED

#: raised whenever the same settings give other numbers than before, by code that is no part's own (engine, operators)
RESULTS = 4

#: what that is, by rooms
BASE = ("operators", "engine", "kernels", "problem", "case", "metrics")

#: what the paper states (Sec. 3, 4.1, Algorithm 1; App. C.6 for TV-DIP); fp32 and the U-Net's width and depth as in its
#: authors' scripts; the record names any departure from it. It says of other methods' networks nothing. Of a task, the
#: defaults are the paper's.
PAPER: dict[str, Any] = {
    "steps": 4000, "N": 2, "lam": 1.0, "lr": 1e-4, "residual": "squared", "input_update": "network", "start": "paper",
    "rho": 1.0, "network": "unet", "network.width": 64, "network.depth": 3, "network.init": "normal", "ema": 0.0,
    "stop": "none", "tv_weight": 0.0, "network.add_input": False, "warm": None, "precision": "fp32",
}  # fmt: skip

#: of knobs that take a name or a file what is a name, whatever lies under it in the folder that a command is given in
NAMES = {"prior": (*shipped(), *PUBLISHED, "ffdnet"), "mask": ("center", "random")}


def problem(cfg: Config) -> dict[str, Any]:
    """The knobs that measurements depend on, but for the seed: the task's, the reader's, size and truth."""
    read = [file_digest(str(path)) for path in make_task(cfg).reads()]
    return {"dataset.reader": cfg.dataset.reader.name, **_knobs(cfg)[0], **({"task.read": read} if read else {})}


def settings(cfg: Config) -> dict[str, Any]:
    """All others that the result depends on: the method's; where it iterates the network's, the rule's, steps ..."""
    chosen = _knobs(cfg)[1]
    if cfg.learns:
        chosen["network"] = cfg.network.name
        chosen["precision"] = pick_precision(cfg.precision, pick_device(cfg.device))
    if read := cfg.method.part.reads(cfg.method.options):
        chosen["read"] = [file_digest(str(path)) for path in read]
    references = cfg.method.part.wants(cfg.method.options) == "references"
    if references and chosen.get("pool") is None and not cfg.dataset.reader.part.generated:
        chosen["pool"] = _others(cfg)
    return chosen


def _others(cfg: Config) -> str:
    """A hash of all images of the data set, for a method that looks at the others."""
    data = cfg.dataset
    reader = data.reader.part(data.reader.options, Path(cfg.data_root), data.folder, data.files, cfg.size, data.name)
    if isinstance(reader, FileReader):
        folder, paths = reader.data_folder(), reader.paths().values()
        # those it reads, and no results that may lie among them; of a pair of files both
        read = sorted({p for path in paths for p in (path, path.with_suffix(".hdr")) if p == path or p.is_file()})
        return _folder_digest(folder, data.files or [str(path.relative_to(folder)) for path in read])
    return digest({name: content(load()) for name, load in reader.items().items()})


def identity(cfg: Config) -> dict[str, Any]:
    """All that the result depends on but the image itself, by name."""
    names = {"task": cfg.task.name, "method": cfg.method.name, "dataset": cfg.dataset.name, "seed": cfg.seed}
    return {**names, **problem(cfg), **settings(cfg), "results": RESULTS, "sources": sources(cfg)}


def _knobs(cfg: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """The knobs in force that can change a result: of the measurements, and the others. Files as their content."""
    measured: dict[str, Any] = {}
    other: dict[str, Any] = {}
    idle = idle_knobs(cfg)
    for name, known in in_force(cfg).items():
        if not known.field.metadata["result"] or name in ("seed", "dataset.name"):  # said by themselves
            continue
        # what has no effect makes no other result; but the start image is shown and scored
        value = known.field.default if name in idle and name != "start" else value_of(cfg, known)
        of_data = known.part_kind in ("task", "dataset.reader") or name in ("size", "truth")
        of_file = known.field.metadata["file"] and value not in NAMES.get(name, ())
        (measured if of_data else other)[name] = file_digest(value) if of_file else value
    return measured, other


def digest(chosen: dict[str, Any]) -> str:
    """A hash of names and values, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def run_folder(cfg: Config) -> Path:
    """``outputs/task/setting/method-hash``: a function of what the run is alone, never of the clock."""
    return Path(cfg.outputs) / cfg.task.name / make_task(cfg).setting / f"{cfg.method.name}-{digest(identity(cfg))[:8]}"


def image_folder(cfg: Config, name: str, sample: Sample) -> str:
    """The folder of one image below its run's: its name, and for what is read from files a hash of what was in them.

    The image alone does not say it all: in a file with another unit or affine it may look the same.
    """
    if cfg.dataset.reader.part.generated:
        return name
    found, origin = content(sample), sample.origin
    if origin.digest:
        found = digest({"content": found, "file": origin.digest, "low": origin.low, "high": origin.high})
    return f"{name}-{found[:6]}"


def departures(cfg: Config) -> dict[str, Any]:
    """The knobs whose value is not the paper's, among those this run uses, but for what makes the method itself."""
    chosen = {**problem(cfg), **settings(cfg)}
    paper = {**PAPER, **cfg.method.part.defaults}
    if not cfg.learns:  # its weight is not TV-DIP's
        paper = {"start": PAPER["start"]}
    if cfg.method.name != "aseqdip":
        paper.pop("network", None)
    if paper.get("network") != cfg.network.name:  # another's sizes mean something else
        paper = {name: value for name, value in paper.items() if name not in ("network.width", "network.depth")}
    paper |= _defaults(cfg)
    return {name: chosen[name] for name in paper if name in chosen and chosen[name] != paper[name]}


def _defaults(cfg: Config) -> dict[str, Any]:
    """Those of the task's knobs, but for what a setting of its own is named by: accel, views, hiar."""
    part, options = cfg.task.part, cfg.task.options
    usual = {field.name: field.default for field in dataclasses.fields(options)}
    setting = part(options).setting
    return {n: v for n, v in usual.items() if part(dataclasses.replace(options, **{n: v})).setting == setting}


# --- content -----------------------------------------------------------------------------------------------------


def content(sample: Sample) -> str:
    """A hash of all that was read of an image: type, shape and values of each array."""
    found = hashlib.sha256()
    for name in ("image", "kspace", "maps", "mask", "sinogram", "angles"):
        if (tensor := getattr(sample, name)) is not None:
            array = np.ascontiguousarray(tensor.numpy())
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(array.tobytes())
    found.update(f"{sample.hu_width}".encode())
    return found.hexdigest()


def named_files(cfg: Config) -> dict[Path, str]:
    """Digests of the files that the settings name: they are read anew for each image, and their content is counted."""
    knobs = [known for known in in_force(cfg).values() if known.field.metadata["file"]]
    named = [Path(str(value)).expanduser() for known in knobs if (value := value_of(cfg, known)) is not None]
    read = (*make_task(cfg).reads(), *cfg.method.part.reads(cfg.method.options))
    return {path: bytes_digest(path) for path in (*named, *read) if path.is_file()}


def file_digest(value: Any) -> Any:
    """For the path of a file or folder a hash of what is in it; any other value as it is."""
    if not isinstance(value, str) or not Path(value).expanduser().exists():
        return value
    path = Path(value).expanduser()
    return _folder_digest(path, None) if path.is_dir() else f"content {bytes_digest(path)[:16]}"


def _folder_digest(folder: Path, files: list[str] | None) -> str:
    """A hash of the names and contents of a folder's files, or of those that are named."""
    named = files if files is not None else sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    found = hashlib.sha256()
    for name in named:
        path = folder / name
        found.update(f"{name} {bytes_digest(path) if path.is_file() else 'missing'}\n".encode())
    return f"content {found.hexdigest()[:16]}"


# --- code --------------------------------------------------------------------------------------------------------


def sources(cfg: Config) -> str:
    """A hash of the code of the chosen parts and of what they extend, without comments and docstrings."""
    parts: list[type] = [cfg.task.part, cfg.method.part, cfg.dataset.reader.part]
    parts += [*cfg.method.part.code, *(METHODS[name] for name in cfg.method.part.uses(cfg.method.options))]
    if cfg.start not in cfg.task.part.starts:
        parts.append(METHODS[cfg.start])
    if cfg.learns:
        parts.append(NETWORKS[cfg.network.name])
    if cfg.rule is not None and cfg.method.part.iterative:
        parts.append(cfg.rule.part)
    return _code_of(parts)


def code_of(cfg: Config) -> str:
    """Hashes of the code of the method and of what all run on: results set side by side should be of the same.

    The second is in no identity: most of what changes there changes no number, and ``RESULTS`` is raised for the rest.
    """
    root = Path(__file__).parent
    below = [path for room in BASE for path in (*root.glob(f"{room}.py"), *root.glob(f"{room}/*.py"))]
    base = sorted(".".join((root.name, *path.relative_to(root).with_suffix("").parts)) for path in below)
    return f"{_code_of([cfg.method.part, *cfg.method.part.code])}:{_joined(base)}"


def _code_of(parts: list[type]) -> str:
    modules = {c.__module__ for part in parts for c in part.__mro__}
    ours = sorted(m for m in modules if m.split(".")[0] not in (*sys.stdlib_module_names, "torch"))
    for top in {name.partition(".")[0] for name in ours}:
        _remember(top)
    for name in ours:  # grows as it goes
        ours += sorted(other for other in helpers(name) if other not in ours)
    return _joined(sorted(ours))


def _joined(names: list[str]) -> str:
    return hashlib.sha256("\n".join(map(code, names)).encode()).hexdigest()[:16]


@cache
def _remember(top: str) -> None:
    """Read what is imported of a package: what is edited while a sweep goes on is not what runs."""
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        _source(name)


def helpers(name: str) -> set[str]:
    """The modules of its own package that a part's module imports: of this one's those named ``_*``.

    What else it takes of this package is not its own: ``RESULTS`` counts that.
    """
    top = name.partition(".")[0]
    own = {n for n in _read(name)[1] if n.partition(".")[0] == top}
    return {n for n in own if (top != "aseqdip" or n.rpartition(".")[2][0] == "_") and _source(n) is not None}


def code(name: str) -> str:
    """A module's code as a hash that comments, docstrings and layout do not change."""
    return _read(name)[0]


@cache
def _read(name: str) -> tuple[str, frozenset[str]]:
    """A module's code as a hash, and what it imports, by full names: modules, and what may be modules or in them."""
    source = _source(name)
    if source is None:  # compiled, without its source
        return f"{name} {getattr(sys.modules.get(name), '__version__', '')}", frozenset()
    try:
        tree, found = ast.parse(source), set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (origin := _origin(node, name)):
                found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
        return hashlib.sha256(ast.unparse(tree).encode()).hexdigest(), frozenset(found)
    except (SyntaxError, ValueError, RecursionError):  # of another Python: it is never executed
        return hashlib.sha256(source.encode()).hexdigest(), frozenset()


def _origin(node: ast.ImportFrom, name: str) -> str:
    """What a module imports from, by its full name; "" where that would be above its package."""
    package = getattr(_spec(name), "parent", None) or ""
    try:
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    except ImportError:
        return ""


@cache
def _source(name: str) -> str | None:
    """A module's, whether it is imported yet or not; None for what is none or has none."""
    try:
        if (spec := _spec(name)) is None:  # a script, a notebook
            return inspect.getsource(sys.modules[name]) if name in sys.modules else None
        get: Callable[[str], str | None] = getattr(spec.loader, "get_source", lambda name: None)
        return get(name)
    except (OSError, TypeError, ImportError):
        return None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is; nothing is imported to tell, so that it does not matter what was before."""
    top, *inner = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except ValueError:  # __main__
        return None
    if not inner:
        return found
    places = getattr(found, "submodule_search_locations", None) or ()
    return PathFinder.find_spec(name, [str(Path(place, *inner[:-1])) for place in places])
