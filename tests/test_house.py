"""The house: imports go down, no module hides one of the standard library's, and none needs Linux."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aseqdip"
SCRIPTS = sorted((PACKAGE.parent / "scripts").glob("*.py"))

#: rooms from the top floor to the ground; a module of one may import from its own floor's room and from floors below
FLOORS = (
    ("cli", "__main__", "studies", "recommend", "train", "weights"),
    ("usage", "words", "compose"),
    ("run", "report"),
    ("figures", "identity", "export"),
    ("config",),
    ("tasks", "methods", "stopping"),
    ("data", "case", "networks", "priors"),
    ("engine", "metrics"),
    ("kernels",),
    ("operators", "problem", "paper"),
    ("parts", "records"),
    ("files", "plain", "averages", "thumbnails"),
    ("errors", "__init__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

#: the light half: what it imports, however far, is neither torch nor Hydra
LIGHT = ("report", "paper", "records", "figures")


def room(module: str) -> str:
    """``run`` for ``aseqdip.run.scores``, ``__init__`` for ``aseqdip`` itself."""
    return module.split(".")[1] if "." in module else "__init__"


def modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, eager: bool = False) -> Iterator[str]:
    """What a module imports, by full name, of modules or of what is in them; ``eager``: as soon as it is imported."""
    pending: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: names are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (eager and isinstance(node, (ast.FunctionDef, ast.Lambda))):
            pending += ast.iter_child_nodes(node)


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in modules()} == set(FLOOR)


def test_no_import_goes_up() -> None:
    up = []
    for name, path in modules().items():
        for target in imports(path):
            if name == "aseqdip":  # the door: what it offers is imported when it is asked for
                continue
            if target.startswith("aseqdip.") and room(target) in FLOOR:
                above = FLOOR[room(target)] < FLOOR[room(name)]
                beside = FLOOR[room(target)] == FLOOR[room(name)] and room(target) != room(name)
                # rooms of one floor may know each other as long as it is not mutual
                if above or (beside and room(name) in neighbours(room(target))):
                    up.append(f"{name} -> {target}")
    assert up == []


def neighbours(of: str) -> set[str]:
    """The rooms that one imports from."""
    own = [path for name, path in modules().items() if room(name) == of]
    return {room(target) for path in own for target in imports(path) if target.startswith("aseqdip.")}


@pytest.mark.parametrize("start", LIGHT)
def test_the_report_needs_neither_torch_nor_hydra(start: str) -> None:
    known, seen = modules(), set()
    pending = [name for name in known if room(name) == start]
    while pending:
        name = pending.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        for target in imports(known[name], eager=True):
            top = target.split(".")[0]
            assert top not in ("torch", "hydra", "omegaconf"), f"{start} gets {top} by {name}"
            # of "aseqdip.records.Record" the module is the longest part that is one
            pending += [target, target.rpartition(".")[0]]


def test_no_module_hides_one_of_the_standard_library() -> None:
    """Beside a module named like the standard library's, nobody may import that: run as a script, he gets the other."""
    for path in PACKAGE.rglob("*.py"):
        if path.stem in sys.stdlib_module_names and path.stem not in ("__init__", "__main__"):
            for sibling in path.parent.glob("*.py"):
                assert path.stem not in {target.split(".")[0] for target in imports(sibling)}, sibling


#: what is not everywhere: imported where it is used, with something to do elsewhere
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


@pytest.mark.parametrize("path", [*modules().values(), *SCRIPTS], ids=lambda path: path.stem)
def test_it_runs_on_windows_and_macos_too(path: Path) -> None:
    """No import that fails there, and text is UTF-8 whatever the system's own encoding is."""
    assert POSIX.isdisjoint(imports(path, eager=True))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and of_text(node):
            assert "encoding" in {word.arg for word in node.keywords}, f"{path.name}:{node.lineno}"


def of_text(call: ast.Call) -> bool:
    """Whether it opens, reads or writes a file as text, by a method of its path."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name != "open" or not call.args:
        return name in ("read_text", "write_text", "open")
    mode = call.args[0]
    return isinstance(mode, ast.Constant) and mode.value in ("r", "w", "a", "x", "r+", "w+", "rt", "wt")
