"""Methods: Algorithm 1 step by step, reductions to one another, no sight of the truth."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aseqdip.config import Config
from aseqdip.data import open_dataset
from aseqdip.engine import Engine
from aseqdip.methods import METHODS
from aseqdip.methods.base import Iterate, Method
from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.problem import Problem
from aseqdip.tasks import Case, make_case

Configure = Callable[..., Config]


def case_of(cfg: Config) -> Case:
    name, load = next(iter(open_dataset(cfg).items()))
    return make_case(cfg, name, load())


def iterates(cfg: Config, case: Case, cls: type[Method] | None = None) -> list[Iterate]:
    method = (cls or METHODS[cfg.method.name])(cfg, Engine("cpu", "fp32"), case.signed)
    return [
        dataclasses.replace(i, image=i.image.clone())
        for i in method.iterates(case.problem, method.start(case.problem))
    ]


def squared(r: Tensor) -> Tensor:
    return r.abs().square().sum()


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_aseqdip_is_algorithm_1(configure: Configure, task: str) -> None:
    """Against the algorithm written out with plain PyTorch: two nested loops, one Adam, one extra pass."""
    cfg = configure(f"task={task}", "steps=6", "N=3", "lam=0.7", "network=medium", "network.width=8")
    case = case_of(cfg)
    p, method = case.problem, METHODS["aseqdip"](cfg, Engine("cpu", "fp32"), case.signed)
    state = method.start(p)
    assert state is not None
    f, z = state.network, p.z0.clone()
    adam = torch.optim.Adam(f.parameters(), lr=cfg.lr, fused=True)
    results = []
    for _ in range(2):
        for _ in range(3):
            adam.zero_grad()
            x = f(z)
            (squared(p.operator(x) - p.y) + 0.7 * squared(x - z)).backward()
            adam.step()
            results.append(x.detach())
        with torch.no_grad():
            z = f(z)
        results[-1] = z
    for ours, theirs in zip(iterates(cfg, case), results, strict=True):
        # Adam divides a gradient by its own size, which amplifies the rounding of the smallest ones
        assert float((ours.image - theirs).norm() / theirs.norm()) < 2e-3


def test_without_its_term_and_with_one_input_it_is_vanilla_dip(configure: Configure) -> None:
    """lam = 0 and N = steps: the input never changes in use, so Vanilla DIP with input z0, step for step."""

    class FromZ0(VanillaDIP):
        def initial_input(self, problem: Problem) -> Tensor:
            return problem.z0.clone()

    cfg = configure("steps=5", "N=5", "lam=0")
    case = case_of(cfg)
    pairs = zip(iterates(cfg, case), iterates(cfg, case, FromZ0), strict=True)
    assert all(torch.equal(ours.image, vanilla.image) for ours, vanilla in pairs)


def test_terms_add_up(configure: Configure) -> None:
    cfg = configure("lam=2")
    for iterate in iterates(cfg, case_of(cfg)):
        terms = iterate.terms
        assert float(terms["loss"]) == pytest.approx(
            float(terms["data"] + 2 * terms["autoencoding"]), rel=1e-5
        )


def test_plain_norms(configure: Configure) -> None:
    cfg = configure()
    case = case_of(cfg)
    first, other = iterates(cfg, case)[0], iterates(configure("residual=norm"), case)[0]
    assert float(other.terms["data"]) == pytest.approx(float(first.terms["data"]) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("update", "task"),
    [("network", "mri"), ("data_consistent", "mri"), ("data_consistent", "ct"), ("reflection", "denoising")],
)
def test_input_updates(configure: Configure, update: str, task: str) -> None:
    cfg = configure(f"task={task}", f"input_update={update}", "N=1", "steps=1")
    case = case_of(cfg)
    p, method = case.problem, METHODS["aseqdip"](cfg, Engine("cpu", "fp32"), case.signed)
    state = method.start(p)
    assert state is not None
    (iterate,) = method.iterates(p, state)
    x = iterate.image
    expected = {
        "network": x,
        "data_consistent": x + p.operator.direct(p.y - p.operator(x)),
        "reflection": 2 * p.y - x if p.y.shape == x.shape else x,
    }[update]
    torch.testing.assert_close(state.z, expected)


def test_data_consistent_input_keeps_what_was_measured(configure: Configure) -> None:
    cfg = configure("task=inpainting", "input_update=data_consistent", "N=1", "steps=1")
    case = case_of(cfg)
    method = METHODS["aseqdip"](cfg, Engine("cpu", "fp32"), case.signed)
    state = method.start(case.problem)
    assert state is not None
    list(method.iterates(case.problem, state))
    torch.testing.assert_close(case.problem.operator(state.z), case.problem.y)


def test_direct_is_the_start_image(configure: Configure) -> None:
    cfg = configure("method=direct", "task=ct")
    case = case_of(cfg)
    (only,) = iterates(cfg, case)
    assert torch.equal(only.image, case.problem.z0)


def test_a_method_sees_no_truth() -> None:
    assert {f.name for f in dataclasses.fields(Problem)} == {
        "y",
        "operator",
        "z0",
        "image",
        "seed",
        "noise_std",
    }


def test_vanilla_input_is_uniform_up_to_a_tenth(configure: Configure) -> None:
    cfg = configure("method=vanilla_dip", "task=ct")
    case = case_of(cfg)
    method = METHODS["vanilla_dip"](cfg, Engine("cpu", "fp32"), case.signed)
    z = method.initial_input(case.problem)
    assert float(z.min()) >= 0
    assert 0.09 < float(z.max()) <= 0.1
    assert torch.equal(z, method.initial_input(case.problem)), "the same problem, the same input"
