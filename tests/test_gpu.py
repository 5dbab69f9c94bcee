"""What must hold on a CUDA device: the CPU's results, at the GPU's speed. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch

from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.engine import Engine, Graph
from aseqdip.methods import METHODS
from aseqdip.reconstruction import Reconstruction
from aseqdip.runner import run
from aseqdip.tasks import make_case

Configure = Callable[..., Config]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TASKS = ("mri", "ct", "denoising", "inpainting", "deblurring")


@pytest.mark.parametrize("task", TASKS)
def test_operators_agree_with_the_cpu(configure: Configure, task: str) -> None:
    cfg = configure(f"task={task}")
    name, load = next(iter(open_dataset(cfg).items()))
    case = make_case(cfg, name, load())
    x = torch.randn(case.problem.z0.shape, generator=torch.Generator().manual_seed(0))
    there = case.to(torch.device("cpu")).problem.operator(x), case.scoring
    moved = case.to(torch.device("cuda"))
    torch.testing.assert_close(moved.problem.operator(x.cuda()).cpu(), there[0], rtol=1e-3, atol=1e-4)
    if moved.problem.operator.linear:
        y = moved.problem.operator(x.cuda())
        left = (y.conj() * y).sum().real
        right = (x.cuda() * moved.problem.operator.adjoint(y)).sum()
        assert float((left - right).abs() / left) < 1e-4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_task_runs_and_agrees_with_the_cpu(configure: Configure, task: str, method: str) -> None:
    here = run(configure(f"task={task}", f"method={method}", "steps=2")).records[0]
    cfg = configure(f"task={task}", f"method={method}", "steps=2", "device=cuda")
    cfg.outputs += "-cuda"
    there = run(cfg).records[0]
    assert there["device"] != "cpu"
    assert there["scores"]["last"]["psnr"] == pytest.approx(here["scores"]["last"]["psnr"], abs=0.2)
    assert there["seconds"]["method"] > 0


def test_checkpoint_continues_on_the_gpu(configure: Configure) -> None:
    cfg = configure("device=cuda", "steps=6")
    name, load = next(iter(open_dataset(cfg).items()))
    engine = Engine("cuda", "fp32")
    case = make_case(cfg, name, load()).to(engine.device)
    method = METHODS["aseqdip"](cfg, engine, case.signed)
    from aseqdip.records import run_folder

    folder = run_folder(cfg) / name
    folder.mkdir(parents=True)

    class Now:
        due = True

    assert Reconstruction(cfg, case, method, folder).run([], Now()) is False  # type: ignore[arg-type]
    (record,) = run(cfg).records
    assert record["steps"] == 6


def test_recorded_steps_are_the_eager_ones(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam, the input update, the random streams and the scores go on as without a graph."""
    for method in ("aseqdip", "self_guided_dip", "vanilla_dip", "sgld_dip"):
        psnr = []
        for warm_up in (3, 10**6):
            monkeypatch.setattr(Graph, "warm_up", warm_up)
            cfg = configure("device=cuda", "precision=fp32", f"method={method}", "steps=24", "perturb=0.01")
            cfg.outputs += f"-{warm_up}"
            (record,) = run(cfg).records
            psnr.append([record["scores"][which]["psnr"] for which in ("last", "ema", "best")])
        assert psnr[0] == pytest.approx(psnr[1], abs=0.05), method


def test_steps_are_recorded(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """No method falls back to eager execution."""
    for task in TASKS:
        for method in ("aseqdip", "vanilla_dip", "self_guided_dip"):
            run(configure("device=cuda", f"task={task}", f"method={method}", "steps=12"))
    run(configure("device=cuda", "task=denoising", "method=rethinking_dip", "steps=12"))
    assert "No CUDA graph" not in caplog.text


def test_several_images_at_once_are_each_as_alone(configure: Configure) -> None:
    scores = []
    for parallel in (1, 3):
        cfg = configure("device=cuda", "images=0:3", f"parallel={parallel}", "steps=24")
        cfg.outputs += f"-{parallel}"
        scores.append({r["image"]: r["scores"]["last"]["psnr"] for r in run(cfg).records})
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_no_host_synchronisation_in_the_loop(configure: Configure) -> None:
    """The method's own steps must never wait for the device."""
    cfg = configure("device=cuda", "steps=8")
    name, load = next(iter(open_dataset(cfg).items()))
    engine = Engine("cuda", "fp32")
    case = make_case(cfg, name, load()).to(engine.device)
    method = METHODS["aseqdip"](cfg, engine, case.signed)
    iterates = method.iterates(case.problem, method.start(case.problem))
    next(iterates)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            next(iterates)
    finally:
        torch.cuda.set_sync_debug_mode("default")
