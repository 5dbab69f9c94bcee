"""Methods: Algorithm 1 step by step, reductions to one another, no sight of the truth."""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Configure, begun, case_of, iterates, method_of, sampled, solved
from PIL import Image
from torch import Tensor

from aseqdip.config import make_task
from aseqdip.data import open_dataset
from aseqdip.data.base import Sample
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods.base import Iterate
from aseqdip.methods.rethinking_dip import divergence
from aseqdip.methods.tv_dip import total_variation
from aseqdip.methods.vanilla_dip import VanillaDIP, nearest_reference
from aseqdip.networks import make_network
from aseqdip.networks.base import NetworkSettings
from aseqdip.problem import Problem
from aseqdip.run.runner import run


def squared(r: Tensor) -> Tensor:
    return (torch.view_as_real(r) if r.is_complex() else r).square().sum()


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_aseqdip_is_algorithm_1(configure: Configure, task: str) -> None:
    """Against the algorithm written out with plain PyTorch: two nested loops, one Adam, one extra pass."""
    cfg = configure(f"task={task}", "steps=6", "N=3", "lam=0.7", "network=medium", "network.width=8")
    case = case_of(cfg)
    p, method = case.problem, method_of(cfg, case)
    state = method.start(p)
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
        assert float(terms["loss"]) == pytest.approx(float(terms["data"] + 2 * terms["autoencoding"]), rel=1e-5)


def test_total_variation_of_the_output_is_a_term_of_its_own(configure: Configure) -> None:
    cfg = configure("lam=2", "tv_weight=0.3")
    plain, *_ = iterates(configure("lam=2"), case_of(cfg))
    first, *others = iterates(cfg, case_of(cfg))
    assert first.terms["regulariser"] == 0.3 * total_variation(first.image, isotropic=True)
    assert float(first.terms["loss"]) == pytest.approx(
        float(plain.terms["loss"] + first.terms["regulariser"]), rel=1e-5
    )
    assert others


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
    p, method = case.problem, method_of(cfg, case)
    state = method.start(p)
    (iterate,) = method.iterates(p, state)
    x = iterate.image
    expected = {
        "network": x,
        "data_consistent": x + p.operator.correction(p.y - p.operator(x)),
        "reflection": 2 * p.y - x if p.y.shape == x.shape else x,
    }[update]
    torch.testing.assert_close(state.z, expected)


def test_data_consistent_input_keeps_what_was_measured(configure: Configure) -> None:
    case, method, state = begun(configure("task=inpainting", "input_update=data_consistent", "N=1", "steps=1"))
    list(method.iterates(case.problem, state))
    torch.testing.assert_close(case.problem.operator(state.z), case.problem.y)


@pytest.mark.parametrize("views", [18, 30])
def test_data_consistent_input_of_few_views_lets_no_error_grow(configure: Configure, views: int) -> None:
    case, method, _ = begun(configure("task=ct", f"views={views}", "input_update=data_consistent", "N=1", "steps=1"))
    truth, x = case.truth, case.truth + torch.randn(case.truth.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        error = float((x - truth).norm())
        x = method.next_input(x, case.problem)
        assert float((x - truth).norm()) < 1.01 * error
    consistent = (case.problem.operator(x) - case.problem.y).norm() / case.problem.y.norm()
    assert float(consistent) < 0.15


def test_data_consistent_input_of_a_blur_lets_no_error_grow(configure: Configure) -> None:
    words = ("task=deblurring", "kernel=motion", "input_update=data_consistent", "N=1", "steps=1")
    case, method, _ = begun(configure(*words))
    x, first = case.problem.z0, (case.problem.operator(case.problem.z0) - case.problem.y).norm()
    for _ in range(60):  # added as it is, the residual grows beyond all bounds
        x = method.next_input(x, case.problem)
    assert (case.problem.operator(x) - case.problem.y).norm() < 0.2 * first


def test_a_step_that_loses_the_fit_goes_back_to_the_weights_of_the_last_good_one(configure: Configure) -> None:
    _, method, state = begun(configure("method=vanilla_dip", "backtrack=5", "steps=6"))
    weight, fits, seen = next(iter(state.network.parameters())), (1.0, 0.9, 2.0, 9.0, 7.0, 1.5), []

    def steps() -> Iterator[Iterate]:
        for step, fit in enumerate(fits, start=1):
            with torch.no_grad():
                weight.add_(1)
            yield Iterate(step, torch.zeros(1), {"data": torch.tensor(fit)})

    start = weight.detach().clone()
    images = []
    for iterate in method.guarded(steps(), state, lambda: weight.detach().clone()):
        images.append(iterate.image)
        seen.append(round(float((weight - start).detach().mean())))
    # 9 and 7 are more than 5 dB (3.16 times) worse than 2, which the weights had after two steps
    assert seen == [1, 2, 3, 2, 2, 3]
    assert torch.equal(images[-1], weight), "the last output is of the weights that it ends with"


@pytest.mark.parametrize("method", ["vanilla_dip", "sgld_dip"])
def test_taking_back_changes_nothing_where_nothing_is_lost(configure: Configure, method: str) -> None:
    words = (f"method={method}", "steps=5")
    plain, guarded = solved(configure(*words))[1], solved(configure(*words, "backtrack=100"))[1]
    assert all(torch.equal(a.image, b.image) for a, b in zip(plain, guarded, strict=True))


class WithPenalty(VanillaDIP):
    """Vanilla DIP from Self-Guided's input, with its regulariser."""

    def initial_input(self, problem: Problem) -> Tensor:
        return torch.rand(problem.z0.shape, generator=problem.generator("input"))

    def penalty(self, x: Tensor) -> Tensor | None:
        z = self.initial_input(Problem(x, self.operator, x, self.image, 0))
        return self.alpha * squared(x - z)


def test_self_guided_without_noise_is_vanilla_with_its_regulariser(configure: Configure) -> None:
    words = ("method=self_guided_dip", "eta=0", "lr_z=0", "passes=1", "steps=5")
    cfg = configure(*words)
    case = case_of(cfg)
    WithPenalty.operator, WithPenalty.image = case.problem.operator, case.problem.image
    WithPenalty.alpha = cfg.method.options.alpha
    for ours, vanilla in zip(iterates(cfg, case), iterates(cfg, case, WithPenalty), strict=True):
        torch.testing.assert_close(ours.image, vanilla.image, rtol=1e-3, atol=1e-4)


def test_self_guided_learns_its_input(configure: Configure) -> None:
    case, method, state = begun(configure("method=self_guided_dip", "steps=3"))
    before = state.z.detach().clone()
    list(method.iterates(case.problem, state))
    assert float((state.z.detach() - before).abs().mean()) > 0.05, "lr_z is 0.1"


def test_self_guided_noise_is_up_to_half_of_the_largest_input(configure: Configure) -> None:
    case, method, state = begun(configure("method=self_guided_dip", "steps=1", "lr_z=0"))
    with torch.no_grad():
        state.z.mul_(0.2)
    seen: list[torch.Tensor] = []
    state.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach() - state.z.detach()))
    list(method.iterates(case.problem, state))
    assert len(seen) == 8, "four of the step, and four of its result"
    for noise in seen:
        assert float(noise.min()) >= -1e-6
        assert float(noise.max()) == pytest.approx(0.5 * float(state.z.detach().max()), rel=0.02)


@pytest.mark.parametrize(("method", "off"), [("tv_dip", "rho=0"), ("sgld_dip", "weight_noise=0")])
def test_relatives_without_their_part_are_vanilla_dip(configure: Configure, method: str, off: str) -> None:
    words = ("burn_in=0.99",) if method == "sgld_dip" else ()
    cfg, vanilla = (
        configure(f"method={method}", off, "steps=5", *words),
        configure("method=vanilla_dip", "steps=5"),
    )
    case = case_of(cfg)
    for ours, theirs in zip(iterates(cfg, case)[:4], iterates(vanilla, case)[:4], strict=True):
        assert torch.equal(ours.image, theirs.image)


def test_total_variation() -> None:
    flat = torch.full((1, 2, 5, 6), 0.3, requires_grad=True)
    total_variation(flat, isotropic=True).backward()
    assert flat.grad is not None
    assert bool(torch.isfinite(flat.grad).all())
    step = torch.zeros(1, 1, 4, 6)
    step[..., 3:] = 2
    assert float(total_variation(step, isotropic=False)) == pytest.approx(2 * 4)
    assert float(total_variation(step, isotropic=True)) == pytest.approx(2 * 4, abs=1e-3)
    corner = torch.zeros(1, 1, 4, 4)
    corner[..., :2, :2] = 1
    assert float(total_variation(corner, isotropic=False)) == pytest.approx(4)
    assert float(total_variation(corner, isotropic=True)) == pytest.approx(2 + 2**0.5, abs=1e-3)


def test_sgld_adds_the_stated_noise_to_the_stated_weights(configure: Configure) -> None:
    """The same run with and without noise differs, after one step, by N(0, (2 lr)^2) on convolutions alone."""
    weights = []
    for noise in (0, 2):
        cfg = configure("method=sgld_dip", f"weight_noise={noise}", "steps=2", "network.width=16")
        case = case_of(cfg)
        method = method_of(cfg, case)
        state = method.start(case.problem)
        next(method.iterates(case.problem, state))
        weights.append({k: v.clone() for k, v in state.network.state_dict().items()})
    for name, clean in weights[0].items():
        difference = weights[1][name] - clean
        if clean.ndim == 4 and clean.numel() > 1000:
            assert float(difference.std()) == pytest.approx(2 * 1e-3, rel=0.1)
        elif clean.ndim != 4:
            assert not difference.any()


def test_sgld_result_is_the_mean_of_its_samples(configure: Configure) -> None:
    case, method, state = begun(configure("method=sgld_dip", "burn_in=0.5", "thinning=2", "steps=8"))
    outputs = []
    plain = method.estimate
    method.estimate = lambda x, s: (outputs.append(x), plain(x, s))[1]
    *_, last = method.iterates(case.problem, state)
    samples = torch.stack([outputs[4], outputs[6]])  # steps 5 and 7
    torch.testing.assert_close(last.image, samples.mean(0))
    torch.testing.assert_close(method.arrays(state)["std"], samples.std(0, unbiased=False), atol=1e-4, rtol=1e-2)


def test_vanilla_inputs(configure: Configure) -> None:
    case = case_of(configure("method=vanilla_dip", "task=ct"))
    method = method_of(configure("method=vanilla_dip", "task=ct"), case)
    z = method.initial_input(case.problem)
    assert 0 <= float(z.min()) < 0.01 < 0.09 < float(z.max()) <= 0.1, "uniform up to a tenth"
    assert torch.equal(z, method.initial_input(case.problem)), "the same problem, the same input"
    normal, smaller = (
        method_of(configure("method=vanilla_dip", "task=ct", "input=normal", f"input_noise={s}"), case)
        .initial_input(case.problem) for s in (1, 0.25)
    )  # fmt: skip
    assert -6 <= float(normal.min()) < float(normal.max()) <= 6
    assert float(normal.std()) == pytest.approx(1, rel=0.05)
    assert torch.allclose(0.25 * normal, smaller)


def test_perturbation_changes_every_step_and_resumes(configure: Configure) -> None:
    cfg = configure("method=vanilla_dip", "perturb=0.03", "steps=4")
    case = case_of(cfg)
    method = method_of(cfg, case)
    whole = iterates(cfg, case)
    first, second = method.start(case.problem), method.start(case.problem)
    running = method.iterates(case.problem, first)
    next(running), next(running)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    rest = [i.image.clone() for i in method.iterates(case.problem, second)]
    assert torch.equal(rest[-1], whole[-1].image)
    assert not torch.equal(whole[0].image, iterates(configure("method=vanilla_dip", "steps=4"), case)[0].image)


def test_direct_is_the_start_image(configure: Configure) -> None:
    case, (only,) = solved(configure("method=direct", "task=ct"))
    assert torch.equal(only.image, case.problem.z0)


def test_a_method_sees_no_truth() -> None:
    seen = {"y", "operator", "z0", "image", "seed", "noise_std", "references"}
    assert {f.name for f in dataclasses.fields(Problem)} == seen


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_oracle_input_is_the_truth_and_the_record_says_so(configure: Configure, task: str) -> None:
    words = (f"task={task}", "method=vanilla_dip", "steps=1")
    cfg = configure(*words, "input=oracle", "input_noise=0")
    case = case_of(cfg)
    assert case.truth is not None
    assert torch.allclose(case.show(case.truth), case.scoring.truth, atol=1e-6), "the truth, as the network sees it"
    (record,) = run(cfg).records
    assert record.facts["oracle_input"] is True
    (blind,) = run(configure(*words)).records
    assert "oracle_input" not in blind.facts
    case.problem.references = [("truth", case.truth)]
    far = method_of(configure(*words, "input=oracle", "input_noise=0.1"), case)
    noise = far.initial_input(case.problem) - case.truth
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(noise, far.initial_input(case.problem) - case.truth), "drawn once"


def test_without_a_truth_there_is_no_oracle(configure: Configure, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 20, 200)).save(tmp_path / "a.png")
    words = ("task=denoising", "dataset=folder", f"data_root={tmp_path}", "truth=none", "method=vanilla_dip")
    summary = run(configure(*words, "input=oracle"))
    assert "input=oracle needs the true image" in summary.failed["a"]


def test_random_input_may_have_more_channels(configure: Configure) -> None:
    case, (iterate,) = solved(configure("method=vanilla_dip", "task=denoising", "input_channels=32", "steps=1"))
    assert iterate.image.shape == case.problem.z0.shape
    unet = configure("method=vanilla_dip", "input_channels=32")
    with pytest.raises(UserError, match="network=skip"):
        iterates(unet, case_of(unet))


def test_divergence_is_unbiased_on_a_linear_map() -> None:
    rng = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=rng)
    u = torch.randn(12, generator=rng, requires_grad=True)
    draws = torch.stack([divergence(matrix @ u, u, rng).detach() for _ in range(4000)])
    error = float(draws.std()) / 4000**0.5
    assert float(draws.mean()) == pytest.approx(float(matrix.trace()), abs=4 * error)


def test_rethinking_loss_estimates_the_error(configure: Configure) -> None:
    """Without perturbation and for a linear f: E[loss] is the mean squared error to the truth (Stein)."""
    cfg = configure("method=rethinking_dip", "task=denoising", "perturb=0", "sigma=50", "steps=1")
    case = case_of(cfg)

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, image: Tensor) -> Tensor:
            return self.gain * image

    method = method_of(cfg, case)
    state = method.start(case.problem)
    state.network = method.engine.prepare(Half())
    (iterate,) = method.iterates(case.problem, state)
    error = float((iterate.image - case.scoring.truth).square().mean())
    assert float(iterate.terms["loss"]) == pytest.approx(error, rel=0.05)


def test_rectified_adam_is_the_rethinking_authors() -> None:
    """Their own class written out: gradient descent with momentum while N < 5, five steps, then the rectified rate."""
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(50, generator=rng)
    theirs, m, v, most = weight.clone(), torch.zeros(50), torch.zeros(50), 2 / 0.001 - 1
    radam = Engine("cpu").adam([{"params": [weight.requires_grad_()], "lr": 0.1}], rectified=True)
    for t in range(1, 12):
        weight.grad = torch.randn(50, generator=rng)
        m, v = 0.9 * m + 0.1 * weight.grad, 0.999 * v + 0.001 * weight.grad.square()
        radam.step()
        left = 0.999**t
        n = most - 2 * t * left / (1 - left)
        step = m / (1 - 0.9**t)
        if n >= 5:
            step *= ((1 - left) * (n - 4) / (most - 4) * (n - 2) / n * most / (most - 2)) ** 0.5 / (v.sqrt() + 1e-8)
        theirs -= 0.1 * step
        assert (n < 5) == (t <= 5)
        torch.testing.assert_close(weight.detach(), theirs)


def test_rethinking_learning_rate_decays(configure: Configure) -> None:
    cfg = configure("method=rethinking_dip", "task=denoising", "decay=0.5", "steps=602", "size=16", "sigma=30")
    cfg.network.depth, cfg.network.width = 2, 2
    case = case_of(cfg)
    method = method_of(cfg, case)
    state = method.start(case.problem)
    rates = []
    for _ in method.iterates(case.problem, state):
        rates.append(state.optimiser.param_groups[0]["lr"])
    assert [rates[0], rates[298], rates[299], rates[599]] == [cfg.lr, cfg.lr, cfg.lr / 2, cfg.lr / 4]


@pytest.mark.parametrize("task", ["mri", "ct", "denoising"])
def test_the_most_similar_reference_is_found(configure: Configure, task: str) -> None:
    """Among other images, the truth itself (at another brightness) is the nearest; scale does not matter."""
    cfg = configure("method=ref_guided_dip", f"task={task}")
    name, sample, case = sampled(cfg)
    twin = dataclasses.replace(sample, source="a twin", image=0.5 * sample.image)
    pool = {**dict(list(open_dataset(cfg).items())[1:5]), "twin": lambda: twin}
    found = list(make_task(cfg).references(sample, case.problem.z0, pool))
    assert len(found) == 5
    case.problem.references = found
    chosen, z = nearest_reference(case.problem, case.signed)
    assert chosen == "twin"
    A = case.problem.operator
    assert float(A.direct(A(z)).norm()) == pytest.approx(float(A.direct(case.problem.y).norm()), rel=1e-3)


def test_bad_and_black_references_are_left_out(configure: Configure) -> None:
    cfg = configure("method=ref_guided_dip", "task=denoising")
    _, sample, case = sampled(cfg)
    other, load_other = list(open_dataset(cfg).items())[1]
    assert sample.image is not None
    black = dataclasses.replace(sample, source="black", image=torch.zeros_like(sample.image))

    def broken() -> Sample:
        raise UserError("cannot be read")

    pool = {"broken": broken, "black": lambda: black, other: load_other}
    case.problem.references = make_task(cfg).references(sample, case.problem.z0, pool)
    assert nearest_reference(case.problem, case.signed)[0] == other


def test_mr_references_of_another_size_are_cropped_or_padded(configure: Configure) -> None:
    cfg = configure("method=ref_guided_dip", "size=64")
    name, sample, case = sampled(cfg)
    assert sample.image is not None
    large = dataclasses.replace(sample, source="large", image=torch.ones(1, 80, 96))
    small = dataclasses.replace(sample, source="small", image=torch.ones(1, 40, 30))
    found = dict(make_task(cfg).references(sample, case.problem.z0, {"large": lambda: large, "small": lambda: small}))
    assert found["large"].shape == found["small"].shape == case.problem.z0.shape
    shown = found["small"].norm(dim=1)[0]
    assert torch.allclose(shown[12:52, 17:47], torch.ones(40, 30), atol=1e-5), "in the middle"
    assert float(shown.sum()) == pytest.approx(40 * 30, rel=1e-5)


def test_a_reference_is_never_the_same_patient(configure: Configure) -> None:
    cfg = configure("method=ref_guided_dip", "task=ct")
    name, sample, case = sampled(cfg)
    sample = dataclasses.replace(sample, patient="P1")
    case = make_task(cfg).make(name, sample)
    other = dataclasses.replace(sample, source="another slice of P1")
    assert (
        list(make_task(cfg).references(sample, case.problem.z0, {"other": lambda: other, name: lambda: sample})) == []
    )
    with pytest.raises(UserError, match="another patient"):
        nearest_reference(case.problem, case.signed)


def test_ref_guided_is_vanilla_from_its_reference(configure: Configure) -> None:
    (record,) = run(configure("method=ref_guided_dip")).records
    assert record.facts["reference"] in {f"brain{i:02d}" for i in range(1, 20)}


@pytest.mark.parametrize(
    ("method", "passes"),
    [("aseqdip", 1.5), ("vanilla_dip", 1), ("self_guided_dip", 4), ("direct", 0)],
)
def test_cost_per_step(configure: Configure, method: str, passes: float) -> None:
    (record,) = run(configure(f"method={method}", "network.width=16")).records
    assert record.passes_per_step == passes
    if passes:
        (vanilla,) = run(configure("method=vanilla_dip", "network.width=16", "seed=1")).records
        # backwards costs about twice as much as forwards
        gradients = {"aseqdip": 1}.get(method, passes)
        ratio = (3 * gradients + passes - gradients) / 3
        assert record.flops_per_step / vanilla.flops_per_step == pytest.approx(ratio, rel=0.03)


def test_flops_of_the_medium_unet() -> None:
    unet = make_network(NetworkSettings(name="unet", width=64, depth=3), 2, 2, True, torch.Generator())
    network = Engine("cpu", "fp32").prepare(unet)
    with torch.no_grad(), network.counting():
        network(torch.zeros(1, 2, 64, 64))
    assert network.cost.passes == 1
    assert network.cost.pass_flops * 25 == pytest.approx(94.6e9, rel=0.01), "at 320 x 320"


def test_one_sample_has_no_deviation(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    words = ("method=sgld_dip", "steps=8", "burn_in=0.5", "size=32")
    for more, samples in (("thinning=9", 1), ("thinning=2", 2)):
        (record,) = run(configure(*words, more)).records
        assert record.facts["samples"] == samples
        assert ("1 sample(s), so there is no std" in caplog.text) == (samples < 2)
        caplog.clear()
    for window in (2, 50):
        ruled = run(configure(*words, "thinning=1", "stop=wmv", f"window={window}", "patience=2"))
        (saved,) = ruled.folder.rglob("reconstruction.npz")
        with np.load(saved) as arrays:  # of the last iterates: the result is one of them where no end was found
            assert ("std" in arrays) == (window == 50)
