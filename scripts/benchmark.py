"""How fast a step is: a plain loop, ours, and what the hardware allows, measured in one process and interleaved.

    python scripts/benchmark.py [--json FILE] [--cases mri,ct,denoising] [--devices cpu,cuda] [--cycles 4]

"naive" is aSeqDIP as a first-time user writes it: plain fp32 modules in the default layout, PyTorch's switches (on a
GPU TF32 in convolutions, no search for cuDNN's algorithms) and Adam as they come, the operator in the obvious way (CT
by rotating the image), PSNR and SSIM by scikit-image on the host at each step. "ours" is the method with the engine's
choices, scored at each step. Both take N = 2 updates and one more pass a cycle; a step's time is the median over cycles
of a cycle's time / N. The ceiling is a large matrix product of random numbers in the precision of our step.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from skimage.metrics import peak_signal_noise_ratio, structural_similarity  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from aseqdip.case import Case  # noqa: E402
from aseqdip.compose import compose  # noqa: E402
from aseqdip.config import Config, make_task  # noqa: E402
from aseqdip.data import open_dataset  # noqa: E402
from aseqdip.engine import Engine, Graph, full_fp32, keep_freed_memory  # noqa: E402
from aseqdip.networks import make_network  # noqa: E402
from aseqdip.operators.ct import ParallelBeam  # noqa: E402
from aseqdip.operators.mri import MultiCoilMRI  # noqa: E402
from aseqdip.records import Record  # noqa: E402
from aseqdip.run import results  # noqa: E402
from aseqdip.run.reconstruction import Reconstruction  # noqa: E402

CASES = {
    "mri": ("task=mri", "accel=4"),  # 320 x 320, 15 coils
    "ct": ("task=ct", "views=30"),  # 512 x 512
    "denoising": ("task=denoising", "sigma=30"),  # 512 x 512, RGB
}


def configure(case: str, device: str, *words: str) -> Config:
    return compose([*CASES[case], f"device={device}", "tracker=none", *words])


def load(cfg: Config) -> Case:
    name, read = next(iter(open_dataset(cfg).items()))
    return make_task(cfg).make(name, read())


# --- the plain loop ------------------------------------------------------------------------------------------------


def naive_operator(case: Case, views: int) -> Callable[[Tensor], Tensor]:
    """A as one would write it first, scaled like ours."""
    A = case.problem.operator
    if isinstance(A, MultiCoilMRI):
        maps, mask = A.maps, A.mask

        def mri(x: Tensor) -> Tensor:
            coils = maps * torch.complex(x[:, :1], x[:, 1:])
            shifted = torch.fft.ifftshift(coils, dim=(-2, -1))
            return mask * torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))

        return mri
    if not isinstance(A, ParallelBeam):
        return A
    size = case.problem.z0.shape[-1]
    angles = torch.arange(views, device=case.problem.z0.device) * (math.pi / views)
    norm = A.radon_norm

    def ct(x: Tensor) -> Tensor:
        pad = math.ceil((math.sqrt(2) - 1) * size / 2)
        padded = F.pad(x, (pad, pad, pad, pad)).expand(views, -1, -1, -1)
        c, s, o = angles.cos(), angles.sin(), torch.zeros_like(angles)
        turn = torch.stack([torch.stack([c, s, o], 1), torch.stack([-s, c, o], 1)], 1)
        grid = F.affine_grid(turn, list(padded.shape), align_corners=False)
        return F.grid_sample(padded, grid, align_corners=False).sum(2) / norm

    return ct


@contextlib.contextmanager
def as_pytorch_comes() -> Iterator[None]:
    """The switches of a process in which no Engine was made."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = True
    keep_freed_memory(False)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = True
        full_fp32()
        keep_freed_memory()


def host_scores(truth: Any, shown: Any, data_range: float) -> None:
    peak_signal_noise_ratio(truth, shown, data_range=data_range)
    window = {"gaussian_weights": True, "sigma": 1.5, "channel_axis": 0}
    structural_similarity(truth, shown, data_range=data_range, **window)


def naive_steps(cfg: Config, case: Case) -> Iterator[None]:
    """aSeqDIP, one cycle of N updates at a time, without any of the engine's choices."""
    problem, device = case.problem, case.problem.z0.device
    channels = problem.z0.shape[1]
    f: nn.Module = make_network(cfg.network, channels, channels, case.signed, problem.generator("network"))
    f = f.to(device).train()
    A = naive_operator(case, getattr(cfg.task.options, "views", 0))
    with torch.no_grad():
        y = A(case.problem.z0)  # the values do not matter for the time
    adam, z = torch.optim.Adam(f.parameters(), lr=cfg.lr), problem.z0.clone()
    assert case.scoring is not None
    truth, data_range = case.scoring.truth[0].cpu().numpy(), case.scoring.data_range
    while True:
        for _ in range(cfg.method.options.N):
            adam.zero_grad()
            x = f(z)
            residual = A(x) - y
            loss = (residual.abs() ** 2).sum() + cfg.method.options.lam * ((x - z) ** 2).sum()
            loss.backward()
            adam.step()
            shown = case.show(x.detach())[0].cpu().numpy()
            host_scores(truth, shown, data_range)
        with torch.no_grad():
            z = f(z)
        yield


# --- ours ----------------------------------------------------------------------------------------------------------


def prepared(cfg: Config, case: Case) -> Reconstruction:
    """The reconstruction as the runner makes it, without checkpoints."""
    method = cfg.method.part(cfg.method.options, cfg.shared(), Engine(cfg.device, cfg.precision), case.signed)
    return Reconstruction(case, method, cfg.rule, cfg.ema, score_every=cfg.score_every)


def our_steps(cfg: Config, case: Case) -> Iterator[Reconstruction]:
    """The same cycles as the runner makes them."""
    reconstruction = prepared(cfg, case)
    while True:
        for _ in range(cfg.method.options.N):
            reconstruction.advance()
        yield reconstruction


def network_seconds(reconstruction: Reconstruction, cycles: int) -> float:
    """A step's share of forward and backward passes through the network alone, recorded like the step itself."""
    state, engine = reconstruction.state, reconstruction.method.engine
    f, z = state.network, state.z.detach()
    gradient = torch.randn(f(z).shape, generator=engine.generator(0), device=z.device)

    def work() -> None:
        state.optimiser.zero_grad(set_to_none=True)
        f(z).backward(gradient)

    def passing() -> Tensor:
        with torch.no_grad():
            return f(z)

    seconds = [bulk_seconds(engine.repeat(part), z.device, 2 * cycles) for part in (work, passing)]
    return seconds[0] + reconstruction.method.extra_passes * seconds[1]


# --- measuring -----------------------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    begin = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begin


def median_seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    work()
    return statistics.median(timed(work, device) for _ in range(repeats))


def bulk_seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Of one call among many, after those that warm up and record."""
    for _ in range(Graph.warm_up + 2 if isinstance(work, Graph) else 1):
        work()
    return timed(lambda: [work() for _ in range(repeats)], device) / repeats


def ceilings(device: torch.device, precision: str, side: int | None = None) -> tuple[float, float]:
    """FLOP/s of a large matrix product, and bytes/s of a large copy; of random numbers, since a GPU is faster
    on zeros.
    """
    n = side or (8192 if device.type == "cuda" else 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rng = torch.Generator(device).manual_seed(0)
    a = torch.randn(n, n, generator=rng, device=device).to(dtype)
    product = median_seconds(lambda: a @ a, device, 9)
    source = torch.randn(n**2 if side else 2**26, generator=rng, device=device)
    target = torch.empty_like(source)
    copy = median_seconds(lambda: target.copy_(source), device, 9)
    return 2 * n**3 / product, 2 * source.numel() * 4 / copy


def alone(case: str, device: str) -> dict[str, float]:
    """Peak memory and time to the first step of ours, in a process of its own."""
    words = [sys.executable, __file__, "--alone", case, "--devices", device]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def run_alone(case: str, device: str) -> None:
    imported = time.perf_counter()
    cfg = configure(case, device)
    steps = our_steps(cfg, load(cfg).to(torch.device(device)))
    next(steps)
    wait(torch.device(device))
    first = time.perf_counter() - imported
    next(steps)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_resident_mb()
    result = {"peak_mb": peak, "import_s": imported - START, "first_cycle_s": first}
    sys.stdout.write(json.dumps(result) + "\n")


def peak_resident_mb() -> float:
    """Of this process; Linux's ru_maxrss would begin with that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (row for row in status.read_text(encoding="utf-8").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def warm_up(device: torch.device) -> int:
    """Cycles before the first that is timed: the input's update, once a cycle, is recorded last."""
    return Graph.warm_up + 2 if device.type == "cuda" else 2


def measure(name: str, device_name: str, cycles: int) -> dict[str, Any]:
    device = torch.device(device_name)
    cfg = configure(name, device_name)
    case = load(cfg).to(device)
    ceiling, bandwidth = ceilings(device, Engine(device_name, cfg.precision).precision)
    with tempfile.TemporaryDirectory() as folder, Engine(device_name, cfg.precision).current():
        naive, ours = naive_steps(cfg, case), our_steps(cfg, case)
        with as_pytorch_comes():
            next(naive)  # the first cycle also allocates and plans
        for _ in range(warm_up(device)):
            reconstruction = next(ours)
        reconstruction.flush()
        before = dict(reconstruction.clock.seconds)
        spent: dict[str, list[float]] = {"naive": [], "ours": []}
        for _ in range(cycles):
            with as_pytorch_comes():
                spent["naive"].append(timed(naive.__next__, device) / cfg.method.options.N)
            spent["ours"].append(timed(ours.__next__, device) / cfg.method.options.N)
        reconstruction.flush()
        seconds = {k: v - before[k] for k, v in reconstruction.clock.seconds.items()}
        titles = dict.fromkeys(("task", "setting", "method", "start"), "")
        record = Record(image=name, task=name, setting="", method=cfg.method.name, titles=titles)
        saving = timed(lambda: results.write(Path(folder), reconstruction, record), device)
        network = network_seconds(reconstruction, cycles)
        _, flops = reconstruction.cost()
    naive_s, ours_s = (statistics.median(v) for v in spent.values())
    # what is saved once is shared out over the steps of the paper's budget
    overhead = (
        sum(spent["ours"]) * cfg.method.options.N - seconds["method"] + saving / 4000 * cycles * cfg.method.options.N
    )
    return {
        "case": name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x{torch.get_num_threads()}",
        "precision": reconstruction.method.engine.precision,
        "naive_step_s": naive_s,
        "ours_step_s": ours_s,
        "ratio": statistics.median(n / o for n, o in zip(spent["naive"], spent["ours"], strict=True)),
        "flops_per_step": flops,
        "network_step_s": network,
        "ceiling_flops": ceiling,
        "ceiling_bytes": bandwidth,
        "fraction_of_ceiling": flops / network / ceiling,
        "fraction_of_whole_step": flops / ours_s / ceiling,
        "overhead_percent": 100 * overhead / seconds["method"],
        **alone(name, device_name),
    }


COLUMNS = (
    ("case", "case", "{}"), ("device", "device", "{}"), ("naive s", "naive_step_s", "{:.4g}"),
    ("ours s", "ours_step_s", "{:.4g}"), ("ratio", "ratio", "{:.2f}"), ("GFLOP", "flops_per_step", "{:.0f}"),
    ("ceiling GFLOP/s", "ceiling_flops", "{:.0f}"), ("network of ceiling", "fraction_of_ceiling", "{:.0%}"),
    ("step of ceiling", "fraction_of_whole_step", "{:.0%}"), ("overhead %", "overhead_percent", "{:.1f}"),
    ("peak MB", "peak_mb", "{:.0f}"), ("first cycle s", "first_cycle_s", "{:.1f}"),
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    giga = {"flops_per_step", "ceiling_flops"}
    lines = ["| " + " | ".join(c[0] for c in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = [form.format(row[key] / 1e9 if key in giga else row[key]) for _, key, form in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    available = "cpu,cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--devices", default=available)
    parser.add_argument("--cycles", type=int, default=5, help="timed cycles of N = 2 steps each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.alone:
        run_alone(words.alone, words.devices)
        return
    rows = []
    for device in words.devices.split(","):
        for name in words.cases.split(","):
            sys.stderr.write(f"{name} on {device} ...\n")
            rows.append(measure(name, device, words.cycles))
            if words.json:  # as they come
                words.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
