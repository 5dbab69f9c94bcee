"""How fast is this GPU, and what brings it there? One line a figure, in under five minutes; exit status 1 if any fails.

    python scripts/gpu_bench.py [--out FOLDER] [--only steps,levers] [--device cuda:1]
    python scripts/gpu_bench.py --device cpu --tiny

Results are appended to FOLDER/gpu-bench.jsonl as they come. Needed: as scripts/gpu_check.py says. The second form only
shows that it runs: its figures mean nothing.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import benchmark  # noqa: E402
import gpu_check  # noqa: E402
import torch  # noqa: E402
from gpu_check import Setup  # noqa: E402

from aseqdip import kernels as kernels_of_ours  # noqa: E402
from aseqdip.config import Config  # noqa: E402
from aseqdip.engine import Engine  # noqa: E402
from aseqdip.run.reconstruction import Reconstruction  # noqa: E402

Figures = dict[str, Any]
BUDGET = 4000  # steps of the paper's protocol
KERNELS = 10


def config(setup: Setup, *words: str) -> Config:
    """The paper's network, size and budget (tiny: none of them)."""
    sized = [*gpu_check.TINY, "steps=100"] if setup.tiny else []
    return gpu_check.composed(("tracker=none", f"device={setup.device}", *sized, *words))


@cache
def ceiling(setup: Setup, precision: str) -> tuple[float, float]:
    """FLOP/s of a large matrix product of random numbers, and bytes/s of a large copy."""
    return benchmark.ceilings(torch.device(setup.device), precision, 128 if setup.tiny else None)


def ceilings(setup: Setup) -> Figures:
    flops = {f"{p} TFLOP/s": ceiling(setup, p)[0] / 1e12 for p in ("bf16", "fp32")}
    return {**flops, "copy TB/s": ceiling(setup, "fp32")[1] / 1e12}


@contextlib.contextmanager
def warmed(setup: Setup, *words: str) -> Iterator[Reconstruction]:
    """A reconstruction whose steps are recorded."""
    cfg = config(setup, *words)
    engine = Engine(cfg.device, cfg.precision)
    with engine.current():
        run = benchmark.prepared(cfg, benchmark.load(cfg).to(engine.device))
        for _ in range(6 * getattr(cfg.method.options, "N", 1) if setup.cuda else 1):
            run.advance()
        if run.method.engine.failures:
            raise gpu_check.Wrong(f"not recorded: {run.method.engine.failures[0]}")
        yield run


def step_seconds(setup: Setup, run: Reconstruction, steps: int = 100) -> float:
    steps = 2 if setup.tiny else steps
    return benchmark.timed(lambda: [run.advance() for _ in range(steps)], run.method.engine.device) / steps


def steps(setup: Setup, *words: str) -> Figures:
    """Whole steps, scored, as the runner makes them; the fraction is of the network's FLOPs over the whole step."""
    if setup.cuda:
        torch.cuda.reset_peak_memory_stats()
    with warmed(setup, *words) as run:
        seconds = step_seconds(setup, run)
        network = benchmark.network_seconds(run, 10 if setup.cuda else 1)
        (top, _), flops = ceiling(setup, run.method.engine.precision), run.cost()[1]
    return {
        "steps/s": 1 / seconds,
        "ms/step": 1e3 * seconds,
        f"s for {BUDGET}": BUDGET * seconds,
        "GFLOP": flops / 1e9,
        "of ceiling": flops / seconds / top,
        "network of ceiling": flops / network / top,
        "peak GB": torch.cuda.max_memory_reserved() / 2**30 if setup.cuda else 0.0,
    }


def kernels(setup: Setup, *words: str) -> Figures:
    """Milliseconds a step in each of the slowest kernels, and in all of them."""
    from torch.profiler import ProfilerActivity, profile

    made = 2 if setup.tiny else 10
    activity = ProfilerActivity.CUDA if setup.cuda else ProfilerActivity.CPU
    with warmed(setup, *words) as run, profile(activities=[activity]) as seen:
        for _ in range(made):
            run.advance()
        benchmark.wait(run.method.engine.device)
    time_of = "self_device_time_total" if setup.cuda else "self_cpu_time_total"
    found = sorted(
        ((getattr(row, time_of) / 1e3 / made, row) for row in seen.key_averages()), key=lambda pair: -pair[0]
    )
    slowest = {f"{row.count / made:.0f} x {row.key[:100]}": ms for ms, row in found[:KERNELS]}
    return {
        "kernels": sum(row.count for _, row in found) / made,
        "ms": sum(ms for ms, _ in found),
        "of them": slowest,
    }


def levers(setup: Setup) -> list[tuple[str, contextlib.AbstractContextManager[Any]]]:
    """What can be turned off: the memory layout, and what the network's own operators offer."""
    plain, last = torch.contiguous_format, torch.channels_last
    prepare = Engine.prepare

    def other_layout(self: Engine, network: torch.nn.Module) -> Any:
        self.layout = plain if self.layout is last else last
        return prepare(self, network)

    found: list[tuple[str, Any]] = [("other layout", mock.patch.object(Engine, "prepare", other_layout))]
    switches = kernels_of_ours.switches
    return found + [(f"without {name}", mock.patch.object(switches, name, False)) for name in vars(switches)]


def lever(setup: Setup, *words: str) -> Figures:
    """Milliseconds a step as it is, and with each lever the other way."""
    with warmed(setup, *words) as run:
        found = {"as it is": 1e3 * step_seconds(setup, run, 50)}
    for name, changed in levers(setup):
        del run  # its graphs go before others are recorded: PyTorch frees workspaces that are shared by stream
        with changed, warmed(setup, *words) as run:
            found[name] = 1e3 * step_seconds(setup, run, 50)
    return found


def images(setup: Setup, *words: str) -> Figures:
    """Images an hour at the paper's budget, from short runs of two lengths: what an image costs, and each of
    its steps.
    """
    count, lengths = (2, (4, 8)) if setup.tiny else (8, (100, 400))
    seconds = []
    for length in lengths:
        with tempfile.TemporaryDirectory() as folder:
            cfg = config(setup, *words, f"steps={length}", f"images=0:{count}", f"outputs={folder}")
            begin = time.perf_counter()
            outcome = gpu_check.reconstruct(cfg)
            seconds.append(time.perf_counter() - begin)
        if len(outcome.records) != count:
            raise gpu_check.Wrong(f"{len(outcome.records)} of {count} images were finished")
    step = max(seconds[1] - seconds[0], 0) / (lengths[1] - lengths[0]) / count
    image = max(seconds[0] / count - lengths[0] * step, 0)
    return {"images/h": 3600 / (image + BUDGET * step), "s an image": image, "ms a step": 1e3 * step}


#: figures by name, and the words that they are made with, one after another
STAGES: dict[str, tuple[Callable[..., Figures], list[tuple[str, ...]]]] = {
    "ceilings": (ceilings, [()]),
    "steps": (steps, [(f"task={task}",) for task in gpu_check.TASKS]),
    "kernels": (kernels, [("task=mri",), ("task=ct",), ("task=denoising",)]),
    "levers": (lever, [("task=mri",), ("task=denoising",), ("task=mri", "precision=fp32")]),
    "images": (images, [("task=mri", f"parallel={workers}") for workers in (1, 2, 4, 8)]),
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny images, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder that gpu-bench.jsonl is appended to")
    parser.add_argument("--only", default=",".join(STAGES), help="stages, by name")
    words = parser.parse_args()
    setup, begin = Setup(words.device, words.tiny), time.perf_counter()
    report = gpu_check.Report(words.out and words.out / "gpu-bench.jsonl")
    report.line("INFO", "device", gpu_check.facts(setup), 0.0)
    for stage in words.only.split(","):
        measure, combined = STAGES[stage]
        for case in combined:
            report.check(" ".join([stage, *case]), partial(measure, setup, *case))
    sys.exit(report.end("gpu-bench", begin))


if __name__ == "__main__":
    main()
