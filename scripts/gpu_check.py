"""Is everything right on this GPU? One line a check, in under five minutes; exit status 1 if any fails.

    python scripts/gpu_check.py [--out FOLDER] [--only recorded,resume] [--device cuda:1]
    python scripts/gpu_check.py --device cpu --tiny

Results are appended to FOLDER/gpu-check.jsonl as they come. Needed: PyTorch, NumPy, SciPy, scikit-image, h5py,
matplotlib, hydra-core and omegaconf. The second form is the same on a CPU, on tiny images, with recordings emulated.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

import benchmark  # noqa: E402
import emulation  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import aseqdip  # noqa: E402
from aseqdip import engine, figures  # noqa: E402
from aseqdip.compose import compose  # noqa: E402
from aseqdip.config import Config  # noqa: E402
from aseqdip.engine import Engine, Graph  # noqa: E402
from aseqdip.errors import UserError  # noqa: E402
from aseqdip.methods import METHODS  # noqa: E402
from aseqdip.operators import MultiCoilMRI, ct  # noqa: E402
from aseqdip.records import COLUMNS, Record, read_curve  # noqa: E402
from aseqdip.run import checkpoint, runner  # noqa: E402
from aseqdip.run.reconstruction import Reconstruction  # noqa: E402

STEPS = 20
TOLERANCE = 0.05  # dB, over all iterates; stage "optimiser" shows that this is less than what training changes
TASKS = ("mri", "ct", "denoising", "inpainting", "deblurring")
EVERYWHERE = ("aseqdip", "vanilla_dip", "tv_dip", "es_dip", "sgld_dip", "self_guided_dip")
TINY = ("size=32", "network.width=4", "network.depth=2", "coils=4")

BINNING = ct._binning  # as it is, without emulation


class Wrong(Exception):
    """What was found instead."""


@dataclass(frozen=True)
class Setup:
    """Where the checks run: a device, and whether on tiny images."""

    device: str
    tiny: bool

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def words(self, *words: str) -> tuple[str, ...]:
        """A smoke run's settings, where ``words`` do not say otherwise."""
        own = ["preset=smoke", f"steps={STEPS}", f"device={self.device}", "precision=fp32"]
        own += TINY if self.tiny else ["network.width=32"]
        said = {word.split("=")[0] for word in words}
        return (*(word for word in own if word.split("=")[0] not in said), *words)

    def config(self, *words: str, outputs: str = "outputs") -> Config:
        """Their config."""
        return replace(composed(self.words(*words)), outputs=outputs)


@cache
def composed(words: tuple[str, ...]) -> Config:
    return compose(words)


def written(value: Any) -> str:
    """A figure as printed; figures by name, a line each."""
    if isinstance(value, dict):
        return "".join(f"\n        {written(v)}  {k}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Report:
    """Prints a line for each result, and appends it to a file as it comes."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.failures = file, 0
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)

    def check(self, name: str, work: Callable[[], str | dict[str, Any]]) -> None:
        """One check: PASS with what it returns (a line, or figures by name), FAIL with what it raises."""
        begin, passed = time.perf_counter(), True
        facts: dict[str, Any] = {}
        try:
            found = work()
            facts = {} if isinstance(found, str) else found
            figure = found if isinstance(found, str) else ", ".join(f"{k} {written(v)}" for k, v in found.items())
        except Exception as error:
            passed, lines = False, str(error).splitlines() or [""]
            figure = lines[0] if isinstance(error, Wrong) else f"{type(error).__name__}: {lines[0]}"
            self.failures += 1
        self.line("PASS" if passed else "FAIL", name, figure, time.perf_counter() - begin, **facts)

    def end(self, name: str, begin: float) -> int:
        """The last line; the exit status."""
        failed = self.failures > 0
        figure = f"{self.failures} failed" if failed else "all passed"
        self.line("FAIL" if failed else "PASS", name, figure, time.perf_counter() - begin)
        return int(failed)

    def line(self, status: str, name: str, figure: str, seconds: float, **facts: Any) -> None:
        sys.stdout.write(f"{status}  {name}: {figure} ({seconds:.1f} s)\n")
        sys.stdout.flush()
        if self.file is not None:
            content = {"status": status, "name": name, "figure": figure, "seconds": round(seconds, 3), **facts}
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")


# --- a run --------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a run left: curves by image and seed, and the functions it recorded."""

    curves: dict[str, dict[str, np.ndarray]]
    records: list[Record]
    graphs: list[Graph[Any]]


@contextlib.contextmanager
def watched() -> Iterator[list[Graph[Any]]]:
    """Every Graph that is made inside."""
    made: list[Graph[Any]] = []

    class Watched(Graph[Any]):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    with mock.patch.object(engine, "Graph", Watched):
        yield made


def reconstruct(cfg: Config, recorded: bool = True) -> Outcome:
    """The runner's results; without recording, every step runs kernel by kernel. Raises Wrong if an image fails."""
    quiet: list[Any] = [mock.patch.object(runner, "make_trackers", lambda *args: [])]
    quiet += [mock.patch.object(figures, name, lambda *args: None) for name in ("preview", "curve")]
    with contextlib.ExitStack() as stack:
        for patch in (*quiet, mock.patch.object(Graph, "warm_up", 3 if recorded else 10**9)):
            stack.enter_context(patch)
        graphs = stack.enter_context(watched())
        summary = runner.run(cfg)
    if summary.failed:
        raise Wrong(next(iter(summary.failed.values())))
    files = sorted(Path(cfg.outputs).rglob("curve.csv"))
    return Outcome({str(f.relative_to(cfg.outputs)): read_curve(f) for f in files}, summary.records, graphs)


def gap(one: Outcome, other: Outcome) -> float:
    """Largest difference in dB over all iterates, of their PSNR and of their running average's."""
    if one.curves.keys() != other.curves.keys():
        raise Wrong("not the same images were finished")
    largest = 0.0
    for key, name in itertools.product(one.curves, ("psnr", "psnr_ema")):
        a, b = one.curves[key][name], other.curves[key][name]
        if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any() or np.isnan(a).all():
            raise Wrong("not the same iterates have a score")
        largest = max(largest, float(np.nanmax(np.abs(a - b))))
    return largest


def agree(difference: float, figure: str) -> str:
    if not difference <= TOLERANCE:  # NaN is none
        raise Wrong(f"{difference:.3f} dB apart, {figure}")
    return f"{difference:.4f} dB apart, {figure}"


def all_recorded(outcome: Outcome) -> str:
    """Raises Wrong unless everything that was called often enough was recorded."""
    due = [graph for graph in outcome.graphs if graph.calls > graph.warm_up]
    lost = [graph for graph in due if graph.graph is None]
    if lost or len(due) < 2:
        reason = next((reason for graph in lost for reason in graph.failures), "too few calls")
        raise Wrong(f"{len(due) - len(lost)} of {len(due)} functions were recorded: {reason}")
    return f"{len(due)} recordings"


# --- checks: each returns what it found, and raises where that is wrong --------------------------------------------


def compare(setup: Setup, *words: str) -> str:
    """A run replayed from recordings against the same one kernel by kernel."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        recorded = reconstruct(setup.config(*words, outputs=one))
        figure = all_recorded(recorded)
        eager = reconstruct(setup.config(*words, outputs=other), recorded=False)
    return agree(gap(recorded, eager), figure)


def combinations(setup: Setup) -> Iterator[tuple[str, ...]]:
    """What is recorded, in both precisions (tiny: in one, in fewer steps): every method on every task (tiny: on one or
    two), then other networks, inputs, rules and optimisers."""
    number = itertools.count()
    for case in _combinations(setup.tiny):
        words = (*case, "steps=12") if setup.tiny else case
        for precision in ("bf16", "fp32")[next(number) % 2 :: 2] if setup.tiny else ("bf16", "fp32"):
            yield *words, f"precision={precision}"


def _combinations(tiny: bool) -> Iterator[tuple[str, ...]]:
    for number, task in enumerate(TASKS):
        for place, method in enumerate(EVERYWHERE):
            if not tiny or place in (0, number + 1):
                yield f"task={task}", f"method={method}"
    yield "task=mri", "method=ref_guided_dip"
    yield "task=denoising", "method=rethinking_dip"
    # its own recipe: a network with dropout and partial convolutions, RAdam, a rate that falls
    yield "task=denoising", "method=rethinking_dip", "recipe=original", "network.width=4", "network.depth=3"
    yield "task=denoising", "network=s2s", "network.width=4", "network.depth=3"
    yield "task=inpainting", "method=vanilla_dip", "recipe=original", "network.width=4"
    yield "task=denoising", "method=vanilla_dip", "perturb=0.03", "ema=0.9"
    yield "task=mri", "input_update=data_consistent", "residual=norm"
    yield "task=deblurring", "kernel=motion", "input_update=data_consistent"
    yield "task=denoising", "input_update=reflection", "stop=discrepancy", "ema=0.9"
    yield "task=mri", "stop=wmv", "window=5", "patience=8"
    yield "task=ct", "N=4", "stop=emv", "score_every=3"


def paper_sizes(setup: Setup) -> Iterator[tuple[str, ...]]:
    """The paper's networks on the paper's images."""
    for task, width, size in (("mri", 64, 320), ("ct", 64, 512), ("denoising", 128, 512)):
        sized = f"network.width={width}", f"size={size}", "precision=bf16"
        if not setup.tiny:
            yield "preset=paper", "tracker=none", f"task={task}", *sized


def as_on_a_cpu(setup: Setup, *words: str) -> str:
    """The same curves on the device as on a CPU."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        here = reconstruct(setup.config(*words, outputs=one))
        there = reconstruct(replace(setup.config(*words, outputs=other), device="cpu"), recorded=False)
    (curve, *_) = here.curves.values()
    return agree(gap(here, there), f"{len(curve['psnr'])} iterates")


def comparisons(setup: Setup) -> Iterator[tuple[str, ...]]:
    """Every task with the paper's method, and each method without a network on the first task that it is for."""
    yield from [("task=mri",)] if setup.tiny else tasks(setup)
    for method in METHODS:
        if not METHODS[method].learns and method != "bm3d":  # a package of its own, which nobody may ship
            for words in (*tasks(setup), ("task=deblurring", "kernel=motion")):
                with contextlib.suppress(UserError):
                    runner.check_combination(setup.config(*words, f"method={method}"))
                    yield *words, f"method={method}"
                    break


def without_training(setup: Setup, *words: str) -> str:
    """The comparison sees a step that does not train."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        right = reconstruct(setup.config(*words, outputs=one))
        with mock.patch.object(engine.Adam, "step", lambda self, closure=None: None):
            wrong = reconstruct(setup.config(*words, outputs=other))
    difference = gap(right, wrong)
    if not difference > 2 * TOLERANCE:
        raise Wrong(f"only {difference:.3f} dB tell training from none")
    return f"{difference:.2f} dB tell training from none"


def same_operator(setup: Setup, *words: str) -> str:
    """A x on the device is A x on the CPU, and A^H its adjoint."""
    case, device = benchmark.load(setup.config(*words)), torch.device(setup.device)
    A, x = case.problem.operator, torch.randn(case.problem.z0.shape, generator=torch.Generator().manual_seed(0))
    maps = A._maps if isinstance(A, ct.ParallelBeam) else {}
    maps.clear()
    with mock.patch.object(ct, "_binning", BINNING):  # emulated: SciPy's products against PyTorch's
        there = A(x)
    maps.clear()
    x, A = x.to(device), case.to(device).problem.operator
    here = A(x)
    error, adjoint = float((here.cpu() - there).abs().max() / there.abs().max()), 0.0
    if A.linear:
        adjoint = abs(float((x * A.adjoint(here)).sum()) / float(here.abs().square().sum()) - 1)
    figure = f"off by {error:.1e}, its adjoint by {adjoint:.1e}"
    if not max(error, adjoint) < 1e-4:
        raise Wrong(figure)
    return figure


def from_python(setup: Setup) -> str:
    """``aseqdip.reconstruct``: wherever what it is given lies, the same image; the operator is left where it was."""
    A = MultiCoilMRI(torch.full((2, 32, 32), 0.5**0.5, dtype=torch.complex64), torch.arange(32) % 2 == 0)
    x = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    y, found = A(x), []
    small: dict[str, Any] = {"steps": 4, "network_width": 4, "network_depth": 2, "precision": "fp32"}
    for home, *places in itertools.product({"cpu": 0, setup.device: 1}, repeat=4):
        A, (given, truth, start) = A.to(home), (t.to(place) for t, place in zip((y, x, x), places, strict=True))
        result = aseqdip.reconstruct(given, A, truth=truth, start=start, device=setup.device, **small)
        if A.mask.device.type != torch.device(home).type:
            raise Wrong(f"the operator was on {home} and is on {A.mask.device}")
        found.append(result.image)
    apart = max(float((image - found[0]).abs().max()) for image in found)
    if not apart < 1e-3:
        raise Wrong(f"{apart:.1e} apart")
    return f"{apart:.1e} apart, {len(found)} times"


def full_precision(setup: Setup) -> str:
    """fp32 is fp32, also where TF32 was chosen for the whole process."""
    backends: Any = torch.backends
    before = getattr(backends, "fp32_precision", None)  # PyTorch 2.9 and newer
    rng = torch.Generator().manual_seed(0)
    image, weight, flat = (torch.randn(s, generator=rng) for s in ((1, 64, 64, 64), (64, 64, 3, 3), (512, 512)))
    found: dict[str, float] = {}
    kinds: tuple[tuple[str, Callable[..., torch.Tensor], tuple[torch.Tensor, ...]], ...] = (
        ("convolution", torch.nn.functional.conv2d, (image, weight)),
        ("product", torch.matmul, (flat, flat)),
    )
    try:
        if before is not None:
            backends.fp32_precision = "tf32"
        Engine(setup.device, "fp32")
        for name, work, parts in kinds:
            right, here = work(*(p.double() for p in parts)), work(*(p.to(setup.device) for p in parts))
            found[name] = float((here.double().cpu() - right).abs().max() / right.abs().max())
    finally:
        if before is not None:
            backends.fp32_precision = before
    figure = ", ".join(f"{name} off by {error:.0e}" for name, error in found.items())
    if not max(found.values()) < 1e-5:
        raise Wrong(figure)
    return figure


def no_waiting(setup: Setup, *words: str) -> str:
    """Neither the steps nor their scores make the host wait for the device."""
    cfg = setup.config(*words)
    device = Engine(cfg.device, cfg.precision)
    with device.current():
        run = benchmark.prepared(cfg, benchmark.load(cfg).to(device.device))
        run.flushed, run.pace = np.inf, lambda: None  # these wait, now and then, on purpose
        for _ in range(12):
            run.advance()
        with waiting_forbidden(setup):
            for _ in range(6):
                run.advance()
    return "6 steps"


@contextlib.contextmanager
def waiting_forbidden(setup: Setup) -> Iterator[None]:
    with contextlib.nullcontext() if setup.cuda else emulation.NoWaiting():
        if setup.cuda:
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if setup.cuda:
                torch.cuda.set_sync_debug_mode("default")


def fallback(setup: Setup) -> str:
    """What cannot be recorded goes on kernel by kernel, random numbers included, and so does the next recording."""
    device = Engine(setup.device, "fp32")
    with device.current(), contextlib.nullcontext() if setup.cuda else emulation.Draws():
        twin, rng = (device.generator(0) for _ in range(2))

        def draw(generator: torch.Generator) -> torch.Tensor:
            return torch.rand(3, generator=generator, device=device.device)

        broken = Graph(lambda: float(draw(rng).sum()), (rng,), device.failures)  # waits for the device
        if [broken() for _ in range(8)] != [float(draw(twin).sum()) for _ in range(8)]:
            raise Wrong("other random numbers than without a recording")
        if broken.graph is not None or len(device.failures) != 1:
            raise Wrong("it counts as recorded")
        after = Graph(partial(draw, rng), (rng,), device.failures)
        if not all(torch.equal(after().cpu(), draw(twin).cpu()) for _ in range(8)):
            raise Wrong("the next recording draws other numbers")
        if after.graph is None:
            raise Wrong(f"no recording after a broken one: {device.failures[-1]}")
    return f"a recording after one that broke ({device.failures[0][:50]})"


def parallel(setup: Setup) -> str:
    """Several images at once are each as alone, over more recordings than there are CUDA streams to deal out."""
    words = "task=mri", "N=1", "steps=6", "images=0:12"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        alone = reconstruct(setup.config(*words, outputs=one))
        at_once = reconstruct(setup.config(*words, "parallel=4", outputs=other))
    return agree(gap(alone, at_once), f"{len(at_once.curves)} images, {all_recorded(at_once)}")


KILLED = """
import os, sys
from aseqdip.compose import compose
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.runner import run
save = Reconstruction.save
def then_die(self):
    save(self)
    if self.state.step >= 7:
        os._exit(9)  # as a kill leaves it, on Windows too
Reconstruction.save = then_die
run(compose(sys.argv[1:]))
"""


def resume(setup: Setup) -> str:
    """A killed process's image goes on at its checkpoint, to the result of an uninterrupted one."""
    words = "task=denoising", "method=self_guided_dip", "checkpoint_minutes=1e-9"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        begun, before = killed([*setup.words(*words), f"outputs={one}"], Path(one))
        with counted(Reconstruction, "advance") as calls:
            resumed = reconstruct(setup.config(*words, outputs=one))
        made = next(calls) - 1  # the last call finds no step to make
        whole = reconstruct(setup.config(*words, outputs=other))
    return resumed_rightly(begun, before, made, resumed, whole)


def killed(words: list[str], outputs: Path) -> tuple[int, np.ndarray]:
    """Steps and PSNR in the checkpoint of a process that was killed after step 7."""
    path = os.pathsep.join([str(ROOT), *sys.path])  # and what is unpacked on it
    command = [sys.executable, "-c", KILLED, *words]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode != 9:
        raise Wrong(f"the process to be killed ended with {done.returncode}: {done.stderr[-200:]}")
    (file,) = outputs.rglob("checkpoint.pt")
    content = io.BytesIO(file.read_bytes()[len(checkpoint.MAGIC) + 32 :])
    saved = torch.load(content, map_location="cpu", weights_only=True)
    return int(saved["state"]["step"]), saved["scores"]["rows"].numpy()[:, COLUMNS.index("psnr")]


def resumed_rightly(begun: int, before: np.ndarray, made: int, resumed: Outcome, whole: Outcome) -> str:
    """Raises Wrong unless the run went on at step ``begun`` and kept what was there."""
    figure = f"{made} steps more after {begun}"
    (curve,) = resumed.curves.values()
    if not 0 < begun < STEPS or made != STEPS - begun or len(curve["psnr"]) != STEPS:
        raise Wrong(f"{figure}, of {STEPS}")
    if not np.allclose(curve["psnr"][:begun], before, rtol=1e-8):
        raise Wrong("the steps before the kill are not the checkpoint's")
    return agree(gap(resumed, whole), figure)


@contextlib.contextmanager
def counted(owner: Any, name: str) -> Iterator[Iterator[int]]:
    """Counts the calls of a method; ``next`` gives their number."""
    numbers, original = itertools.count(), getattr(owner, name)

    def method(self: Any, *args: Any) -> Any:
        next(numbers)
        return original(self, *args)

    with mock.patch.object(owner, name, method):
        yield numbers


def stop(setup: Setup) -> str:
    """A signal ends a run within a second, whatever the device has still to do."""
    words = ["task=denoising", "steps=100000", "precision=auto"]
    words += [] if setup.tiny else ["preset=paper", "tracker=none", "size=512", "network.width=128"]
    numbers, advance, sent = itertools.count(1), Reconstruction.advance, [0.0]

    def advance_and_stop(self: Reconstruction, sinks: Any) -> bool:
        if next(numbers) == (30 if setup.tiny else 300):
            sent[0] = time.perf_counter()
            signal.raise_signal(signal.SIGTERM)
        return advance(self, sinks)

    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.object(Reconstruction, "advance", advance_and_stop):
            reconstruct(setup.config(*words, outputs=folder))
        took = time.perf_counter() - sent[0]
        saved = list(Path(folder).rglob("checkpoint.pt"))
    figure = f"{took:.2f} s after the signal"
    if not saved or took > (10 if setup.tiny else 1):
        raise Wrong(figure if saved else "no checkpoint was left")
    return figure


# --- all of them ---------------------------------------------------------------------------------------------------


def once(setup: Setup) -> Iterable[tuple[str, ...]]:
    return [()]


def tasks(setup: Setup) -> Iterable[tuple[str, ...]]:
    return [(f"task={task}",) for task in TASKS]


def rules(setup: Setup) -> Iterable[tuple[str, ...]]:
    return [("task=mri",), ("task=denoising", "method=rethinking_dip"), ("task=ct", "method=sgld_dip", "stop=wmv")]


#: a check by name, and the words that it is made with, one after another
STAGES: dict[str, tuple[Callable[..., str], Callable[[Setup], Iterable[tuple[str, ...]]]]] = {
    "fp32": (full_precision, once),
    "fallback": (fallback, once),
    "operators": (same_operator, tasks),
    "python": (from_python, once),
    "recorded": (compare, combinations),
    "cpu": (as_on_a_cpu, comparisons),
    "optimiser": (without_training, lambda setup: [("task=mri",)] if setup.tiny else tasks(setup)),
    "parallel": (parallel, once),
    "resume": (resume, once),
    "waiting": (no_waiting, rules),
    "stop": (stop, once),
    "paper": (compare, paper_sizes),
}


def facts(setup: Setup) -> str:
    found = f"PyTorch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads"
    if not setup.cuda:
        return f"CPU, recordings emulated; {found}"
    card = torch.cuda.get_device_properties(setup.device)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB, cuDNN {torch.backends.cudnn.version()}; {found}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny images, fewer combinations")
    parser.add_argument("--out", type=Path, help="folder that gpu-check.jsonl is appended to")
    parser.add_argument("--only", default=",".join(STAGES), help="stages, by name")
    words = parser.parse_args()
    setup, begin = Setup(words.device, words.tiny), time.perf_counter()
    report = Report(words.out and words.out / "gpu-check.jsonl")
    report.line("INFO", "device", facts(setup), 0.0)
    with contextlib.nullcontext() if setup.cuda else emulation.emulated():
        for stage in words.only.split(","):
            check, combined = STAGES[stage]
            for case in combined(setup):
                report.check(" ".join([stage, *case]), partial(check, setup, *case))
    sys.exit(report.end("gpu-check", begin))


if __name__ == "__main__":
    main()
