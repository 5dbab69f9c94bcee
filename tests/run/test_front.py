"""aseqdip.reconstruct: measurements in memory, an operator of one's own, no configuration."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import aseqdip
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods.base import Method, NetworkState
from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.operators import Identity, Mask, MotionBlur, MultiCoilMRI, Operator, ParallelBeam
from aseqdip.operators.mask import center_hole
from aseqdip.problem import Problem
from aseqdip.run.given import check_place, home_of, operator_of
from aseqdip.run.reconstruction import Reconstruction

SMALL = {"steps": 4, "lr": 1e-3, "network_width": 8, "device": "cpu", "precision": "fp32"}


class EveryOtherRow(Operator):
    """An operator of one's own: keeps half of the rows."""

    def forward(self, image: Tensor) -> Tensor:
        return image[..., ::2, :]

    def adjoint(self, measurements: Tensor) -> Tensor:
        full = measurements.new_zeros(*measurements.shape[:-2], 2 * measurements.shape[-2], measurements.shape[-1])
        full[..., ::2, :] = measurements
        return full


class Undefined(Method[Any]):
    """A method of one's own that leaves something out."""

    name = "undefined"


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_an_operator_of_one_s_own() -> None:
    x, A = picture(1, 1, 32, 32), EveryOtherRow()
    result = aseqdip.reconstruct(A(x), A, truth=x, **SMALL)
    assert result.image.shape == x.shape
    assert result.curve["iteration"].tolist() == [1, 2, 3, 4]
    assert result.which == "last"
    mse = float((result.image - x).square().mean())
    assert result.score.psnr_db == pytest.approx(10 * np.log10(float(x.max()) ** 2 / mse), abs=1e-3)
    assert aseqdip.reconstruct(A(x), A, **SMALL).score.psnr_db is None, "without a truth there is no score"


def test_arrays_of_any_order_and_tensors_with_a_graph() -> None:
    x, A = picture(1, 1, 32, 32), EveryOtherRow()
    maps, columns = np.full((2, 32, 32), 0.5**0.5), np.arange(32) % 4 == 1
    turned_maps, kept = maps.astype(">c16")[..., ::-1], columns[::-1]
    scan, image = MultiCoilMRI(turned_maps, kept), picture(1, 2, 32, 32)
    same = MultiCoilMRI(torch.from_numpy(maps).to(torch.complex64), torch.from_numpy(columns).flip(0))
    turned_maps *= 5  # which the operator does not share
    assert torch.equal(scan(image), same(image))
    usual = aseqdip.reconstruct(A(x), A, truth=x, start=x, **SMALL)
    turned = x.numpy()[..., ::-1].copy()[..., ::-1]
    again = aseqdip.reconstruct(A(x).numpy().astype(">f4"), A, truth=turned, start=turned, **SMALL)
    graph = aseqdip.reconstruct(A(x.clone().requires_grad_()), A, truth=x, start=x, **SMALL)
    assert torch.equal(usual.image, again.image) and torch.equal(usual.image, graph.image)
    assert usual.score == again.score == graph.score


@pytest.mark.parametrize("scale", [0.95, 50])
def test_maps_on_another_scale_are_no_other_problem(scale: float) -> None:
    maps, x = torch.full((2, 32, 32), 0.5**0.5, dtype=torch.complex64), picture(1, 2, 32, 32)
    found = []
    for factor in (1.0, scale):
        A = MultiCoilMRI(factor * maps, torch.arange(32) % 2 == 0)
        found.append(aseqdip.reconstruct(A(x), A, "varnet", truth=x, device="cpu", precision="fp32").score.psnr_db)
    assert found[1] == pytest.approx(found[0], abs=0.01)


def test_two_functions_are_an_operator() -> None:
    x, A = picture(1, 1, 32, 32), EveryOtherRow()
    same = aseqdip.reconstruct(A(x).numpy(), (A.forward, A.adjoint), **SMALL)
    assert torch.equal(same.image, aseqdip.reconstruct(A(x), A, **SMALL).image)
    bent = SimpleNamespace(forward=torch.square, adjoint=A.adjoint, linear=False)
    with pytest.raises(UserError, match="One that is not linear is a class that extends Operator"):
        aseqdip.reconstruct(x, bent, **SMALL)


def test_an_operator_that_cannot_follow_to_the_device_is_said() -> None:
    """PyTorch's device without values stands for a GPU."""
    weights, elsewhere = picture(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, device="meta")
    problem = Problem(elsewhere, operator_of((lambda x: weights * x, lambda y: weights * y)), elsewhere, "a", 0)
    with pytest.raises(UserError, match="it cannot compute on meta .*give device='cpu', or a class that extends"):
        check_place(problem.operator, problem, torch.device("cpu"))
    check_place(problem.operator, problem, torch.device("meta"))
    everywhere = operator_of((lambda x: 2 * x, lambda y: 2 * y))
    check_place(everywhere, Problem(elsewhere, everywhere, elsewhere, "a", 0), torch.device("cpu"))


def test_units_do_not_matter() -> None:
    """Data a thousand times as large, from an operator thirty times as strong: the same image, as much larger."""
    x, A = picture(1, 1, 32, 32), EveryOtherRow()
    plain = aseqdip.reconstruct(A(x), A, **SMALL)
    strong = aseqdip.reconstruct(
        30e3 * A(x), (lambda v: 30 * A(v), lambda y: 30 * A.adjoint(y)), start=1e3 * A.adjoint(A(x)), **SMALL
    )
    assert strong.curve["loss"] == pytest.approx(plain.curve["loss"], rel=0.02)
    assert float(strong.image.norm() / plain.image.norm()) == pytest.approx(1e3, rel=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {**SMALL, "method": "sgld_dip", "burn_in": 0.5, "thinning": 1},
        {**SMALL, "method": "vanilla_dip", "residual": "norm", "stop": "discrepancy", "noise_std": 0.25},
        {"method": "tv", "iterations": 20, "noise_std": 0.1, "device": "cpu"},
    ],
    ids=lambda settings: settings["method"],
)
def test_all_that_is_given_and_found_is_in_the_user_s_units(settings: dict[str, Any]) -> None:
    """Images 256 times as large, seen by an operator four times as strong: noise, start, deviations."""
    y, more = (2 * picture(1, 1, 32, 32)).clamp_max(1), dict(settings)
    if "noise_std" in settings:
        more["noise_std"] *= 1024
    plain = aseqdip.reconstruct(y, (lambda x: x, lambda x: x), truth=y, **settings)
    large = aseqdip.reconstruct(1024 * y, (lambda x: 4 * x, lambda x: 4 * x), truth=256 * y, **more)
    assert large.which == plain.which and large.score.step == plain.score.step
    assert plain.score.step in (None, 4), "a norm is not below the noise's energy, but below its root"
    assert large.curve["loss"] == pytest.approx(plain.curve["loss"], rel=1e-3)
    assert large.score.psnr_db == pytest.approx(plain.score.psnr_db, abs=1e-2)
    found = [{"image": one.image, "start": one.start, **one.arrays} for one in (plain, large)]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name] / 256, tensor, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("strength", [30.0, 1.5, 0.02])
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "tv", "steps": 1},
        {"method": "vanilla_dip", "input": "measurement"},
        {"input_update": "data_consistent"},
        {"method": "vanilla_dip", "stop": "holdout"},
    ],
)
def test_an_operator_s_norm_does_not_matter(strength: float, settings: dict[str, Any]) -> None:
    """Its adjoint is no inverse: the start image comes of the operator that is scaled."""
    x, A = picture(1, 1, 32, 32), EveryOtherRow()

    def strong(y: Tensor) -> Tensor:
        return strength * A.adjoint(y)

    words = {**SMALL, **settings}
    plain = aseqdip.reconstruct(A(x), A, **words)
    same = aseqdip.reconstruct(strength * A(x), (lambda v: strength * A(v), strong), **words)
    torch.testing.assert_close(same.start, plain.start, rtol=1e-3, atol=1e-3)
    assert float((same.image - plain.image).norm() / plain.image.norm()) < 0.05


@pytest.mark.parametrize("case", ["mri", "ct", "mask", "blur", "identity"])
def test_operators_are_usable_alone(case: str) -> None:
    kernel = torch.zeros(5, 5)
    kernel[2] = 0.2
    maps = torch.full((3, 32, 32), 3**-0.5, dtype=torch.complex64)
    A: Operator = {
        "mri": lambda: MultiCoilMRI(maps, torch.arange(32) % 2 == 0),
        "ct": lambda: ParallelBeam(size=32, views=10),
        "mask": lambda: Mask(center_hole(32, 32, 0.1)),
        "blur": lambda: MotionBlur(kernel),
        "identity": Identity,
    }[case]()
    x = picture(1, 2 if case == "mri" else 1, 32, 32)
    truth = torch.complex(x[:, 0], x[:, 1]) if case == "mri" else x
    result = aseqdip.reconstruct(A(x), A, truth=truth, **SMALL)
    assert result.image.shape == x.shape
    assert result.score.psnr_db is not None


def test_methods_rules_and_their_settings() -> None:
    x, A = picture(1, 1, 32, 32), Identity()
    stopped = aseqdip.reconstruct(A(x), A, "es_dip", window=3, patience=1, input="normal", **SMALL)
    assert stopped.which == "stopped"
    assert stopped.score.step in (3, 4), "once its window is full"
    sampled = aseqdip.reconstruct(A(x), A, "sgld_dip", burn_in=0.5, thinning=1, **SMALL)
    assert sampled.arrays["std"].shape == x.shape
    assert sampled.facts["samples"] == 2
    guided = aseqdip.reconstruct(A(x), A, "ref_guided_dip", references=[x, picture(1, 1, 32, 32, seed=1)], **SMALL)
    assert guided.facts["reference"] == "reference 0"
    assert torch.equal(aseqdip.reconstruct(A(x), A, "direct").image, x)
    averaged = aseqdip.reconstruct(A(x), A, "rethinking_dip", noise_std=0.1, stop="none", **SMALL)
    assert averaged.which == "ema", "this method's own default"
    bright = aseqdip.reconstruct(1.8 * torch.ones_like(x), A, "dps", iterations=8, noise_std=0.02, device="cpu")
    assert float(bright.image.max()) > 1.2, "nobody says that it is not"


def test_a_rule_watches_images_of_any_range_alike() -> None:
    y = picture(1, 1, 32, 32)
    settings = {**SMALL, "steps": 110, "lr": 1e-2, "stop": "emv"}
    found = [aseqdip.reconstruct(y - shift, Identity(), "vanilla_dip", **settings) for shift in (0.0, 0.6)]
    assert float(found[1].image.min()) < 0
    variances = [[v for v in one.curve["statistic"] if v == v][-1] for one in found]
    assert variances[1] < 5 * variances[0], "what lies below 0 is not taken for movement"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stpes": 6}, "method=aseqdip has no such setting; did you mean steps"),
        ({"lam": -1}, "lam=-1.*at least 0"),
        ({"N": 3}, "steps=4 is not a multiple of N=3"),
        ({"truth": torch.zeros(5, 5)}, "must agree"),
        ({"truth": torch.full((1, 1, 32, 32), -1.0)}, "must be above 0"),
        ({"stop": "zero"}, "waits for a loss below zero"),
        ({"stop": "discrepancy"}, r"that of y is not: give noise_std=\.\.\., .*or use stop='wmv'\.$"),
        ({"stop": "discrepancy", "noise_std": 0.0}, "give noise_std"),
        ({"method": "aseqdp"}, "Did you mean aseqdip"),
        ({"method": Undefined}, "method: Undefined does not say its title"),
        ({"network_depth": 6}, "smaller network.depth"),
        ({"start": torch.zeros(32, 32)}, r"expected a real \(1, channels, height, width\)"),
        ({"y": torch.full((1, 1, 32, 32), torch.nan)}, "y holds values that are NaN or infinite"),
        ({"start": torch.full((1, 1, 32, 32), torch.inf)}, "start image holds values that are NaN or infinite"),
        ({"truth": torch.full((32, 32), torch.nan)}, "truth holds values that are NaN or infinite"),
        ({"method": "vanilla_dip", "input": "oracle"}, "give truth="),
        ({"method": object}, "a class that extends Method"),
        ({"operator": torch.clone}, r"or these two functions, \(A, adjoint\); found builtin"),
        ({"operator": (lambda x: 0 * x, lambda y: 0 * y)}, "operator's norm is 0"),
        ({"operator": (np.asarray, np.asarray)}, "makes no image of y, .*: it gives ndarray"),
        ({"operator": Mask(center_hole(32, 30, 0.1))}, r"makes no image of y, \(1, 1, 32, 32\)"),
        ({"noise_std": -0.1}, "noise_std=-0.1: expected a standard deviation"),
        ({"noise_std": float("nan")}, "noise_std=nan"),
        ({"ema": 1.5}, "ema=1.5: expected a decay"),
        ({"start": "vanilla_dip"}, "start=vanilla_dip: expected an image, .*cg"),
        ({"method": "direct", "start": "tv"}, "method=direct is the start image itself"),
    ],
)
def test_what_cannot_work_is_said(settings: dict[str, object], message: str) -> None:
    given = {"y": picture(1, 1, 32, 32), "operator": Identity(), **SMALL, **settings}
    with pytest.raises(UserError, match=message):
        aseqdip.reconstruct(**given)


def test_a_whole_k_space_is_not_what_is_sampled() -> None:
    A = MultiCoilMRI(torch.full((3, 32, 32), 3**-0.5, dtype=torch.complex64), torch.arange(32) % 2 == 0)
    with pytest.raises(UserError, match=r"A\.sample\(kspace\) makes them"):
        aseqdip.reconstruct(torch.zeros(1, 3, 32, 32, dtype=torch.complex64), A, **SMALL)
    with pytest.raises(UserError, match="gives complex measurements, but y is real"):
        aseqdip.reconstruct(torch.ones(1, 3, 32, 16), A, **SMALL)


@pytest.mark.parametrize("filled", [1.0, float("nan")])
@pytest.mark.parametrize("mri", [False, True])
def test_what_is_not_measured_does_not_count(mri: bool, filled: float) -> None:
    """Whatever stands in a hole: the noise's share of the misfit, and with it TV's weight, is that of what is known."""
    hole = center_hole(32, 32, 0.1)
    maps = torch.full((2, 32, 32), 2**-0.5, dtype=torch.complex64)
    A: Operator = MultiCoilMRI(maps, hole[0, 0]) if mri else Mask(hole)
    y = A(picture(1, 2 if mri else 1, 32, 32))
    full = torch.where(hole == 0, torch.tensor(filled), y)
    tv = {"method": "tv", "noise_std": 0.1, "iterations": 20, "device": "cpu"}
    one, same = (aseqdip.reconstruct(given, A, **tv) for given in (y, full))
    assert torch.equal(same.image, one.image) and same.facts["rho"] == one.facts["rho"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "tv", "iterations": 1}, ["steps", "lr", "network_width"]),
        ({"method": "nlm", "ema": 0.9, "stop": "wmv"}, ["steps", "lr", "network_width", "ema", "stop"]),
        ({"method": "vanilla_dip", "start": "tv"}, ["start"]),
        ({"method": "vanilla_dip", "input": "measurement", "start": "tv"}, []),
        ({"method": "vanilla_dip", "references": [torch.ones(1, 1, 32, 32)]}, ["references"]),
        ({"method": "vanilla_dip", "references": []}, []),
    ],
)
def test_what_has_no_effect_is_said(settings: Any, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    aseqdip.reconstruct(picture(1, 1, 32, 32), Identity(), **SMALL, **settings)
    assert [message.split()[0] for message in caplog.messages if "has no effect" in message] == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give references=[...]."),
        (
            {"references": [torch.ones(1, 1, 32, 32)], "pool": "folder"},
            "pool=folder, a folder, is for the command line",
        ),
    ],
)
def test_references_are_given_in_memory(settings: Any, said: str) -> None:
    with pytest.raises(UserError) as refused:
        aseqdip.reconstruct(picture(1, 1, 32, 32), Identity(), "ref_guided_dip", **SMALL, **settings)
    assert said in str(refused.value)


class InUnits(Operator):
    """Not linear."""

    linear = False

    def forward(self, image: Tensor) -> Tensor:
        return image**2

    def adjoint(self, measurements: Tensor) -> Tensor:
        raise AssertionError

    def direct(self, measurements: Tensor) -> Tensor:
        return measurements.sqrt()


def test_what_methods_cannot_rely_on_is_said(caplog: pytest.LogCaptureFixture) -> None:
    x, A = picture(1, 1, 32, 32), EveryOtherRow()
    aseqdip.reconstruct(A(x), (A.forward, A.adjoint), "direct")
    aseqdip.reconstruct(x**2, InUnits(), "direct")
    assert not caplog.messages
    aseqdip.reconstruct(A(x), (A.forward, lambda y: 3 * A.adjoint(y)), "direct")
    assert "adjoint is not A's" in caplog.messages[0]
    aseqdip.reconstruct(255**2 * x**2, InUnits(), "direct")
    assert "not linear, so nothing is scaled, and the start image reaches 255" in caplog.messages[1]
    aseqdip.reconstruct(x - 0.5, Identity(), "pnp", iterations=1)
    assert "prior=grey is one of images in [0, 1]; the start image has -" in caplog.messages[2]


class Patient(VanillaDIP):
    """A method of one's own that has settings otherwise."""

    name, title = "patient", "Patient"
    defaults = {"steps": 3, "lr": 0.01}


def test_a_setting_s_default_is_that_of_the_operator_s_task() -> None:
    mri = MultiCoilMRI(torch.ones(2, 16, 16, dtype=torch.complex64) / 2**0.5, torch.arange(16) % 2 == 0)

    def last(operator: Operator, method: str, **settings: Any) -> Tensor:
        y = operator(picture(1, 2 if operator is mri else 1, 16, 16))
        common: dict[str, Any] = {"steps": 2, "lr": 0.01, "network_width": 4, "network_depth": 2}
        return aseqdip.reconstruct(y, operator, method, device="cpu", precision="fp32", **common, **settings).image

    for method, operator, task, usual, name in (
        ("self_guided_dip", mri, 2.0, 1.0, "alpha"),
        ("tv_dip", ParallelBeam(size=16, views=8), 0.001, 0.01, "rho"),
        ("tv_dip", mri, 0.01, 0.001, "rho"),
    ):
        assert torch.equal(last(operator, method), last(operator, method, **{name: task}))
        assert torch.equal(last(operator, method), last(operator, method, **{name: None})), "None: the default"
        assert not torch.equal(last(operator, method), last(operator, method, **{name: usual}))


class Watched(Identity):
    """Notes where it is told to go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def to(self, device: Any) -> "Watched":  # type: ignore[override]
        self.asked.append(str(device))
        return self


def test_an_operator_is_left_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    A, y = Watched(), picture(1, 1, 32, 32)
    aseqdip.reconstruct(y, A, **SMALL)
    assert A.asked == ["cpu"] * 2, "there and back"
    monkeypatch.setattr(Reconstruction, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        aseqdip.reconstruct(y, A, **SMALL)
    assert A.asked == ["cpu"] * 4, "whatever comes"
    A.register_buffer("there", torch.zeros(1, device="meta"))
    assert home_of(A, y) == home_of(Identity(), y.to("meta")) == torch.device("meta"), "where it, or else y, lies"
    assert home_of(Identity(), y.numpy()) == torch.device("cpu")


def test_a_method_s_own_defaults_count() -> None:
    y = picture(1, 1, 32, 32)
    found = aseqdip.reconstruct(y, Identity(), Patient, network_width=8, device="cpu", precision="fp32")
    words = {**SMALL, "steps": 3, "lr": 0.01}
    assert torch.equal(found.image, aseqdip.reconstruct(y, Identity(), "vanilla_dip", **words).image)


WITHOUT = """
import sys, aseqdip
assert "torch" not in sys.modules
import torch
y = torch.rand(1, 1, 32, 32)
Identity = aseqdip.operators.Identity
aseqdip.reconstruct(y, Identity(), steps=2, network_width=4, network_depth=2, device="cpu")
sys.exit(", ".join(name for name in ("hydra", "omegaconf", "torch._dynamo", "sympy") if name in sys.modules) or 0)
"""


def test_it_needs_neither_hydra_nor_a_compiler() -> None:
    """PyTorch imports its compiler, a second or two, where a network is made, counted or trained in the usual ways."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_the_noise_that_was_taken_off_is_in_the_user_s_units() -> None:
    y = 255 * picture(1, 1, 32, 32)
    found = aseqdip.reconstruct(y, Identity(), method="nlm", noise_std=12.75, device="cpu")
    assert found.facts["sigma_used"] == pytest.approx(12.75, rel=1e-3)


class TenTimes(MultiCoilMRI):
    """Its maps do not tell how strong it is."""

    def forward(self, image: Tensor) -> Tensor:
        return 10 * super().forward(image)

    def adjoint(self, measurements: Tensor) -> Tensor:
        return 10 * super().adjoint(measurements)


def test_a_subclass_has_a_norm_of_its_own() -> None:
    maps, x = np.full((2, 32, 32), 0.5**0.5, dtype=np.complex64), picture(1, 2, 32, 32)
    found = []
    for kind in (MultiCoilMRI, TenTimes):
        A = kind(maps, np.arange(32) % 2 == 0)  # NumPy's arrays, too
        found.append(aseqdip.reconstruct(A(x), A, "tv", truth=x, iterations=60, device="cpu").score.psnr_db)
    assert found[1] == pytest.approx(found[0], abs=0.5)


def test_whatever_has_forward_and_adjoint_is_an_operator() -> None:
    class Halves:
        def forward(self, image: Tensor) -> Tensor:
            return image[..., ::2, :]

        def adjoint(self, rows: Tensor) -> Tensor:
            return torch.stack((rows, 0 * rows), dim=-2).flatten(-3, -2)

    x, own = picture(1, 1, 32, 32), Halves()
    same = aseqdip.reconstruct(own.forward(x), (own.forward, own.adjoint), **SMALL)
    assert torch.equal(aseqdip.reconstruct(own.forward(x), own, **SMALL).image, same.image)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
@pytest.mark.parametrize("method", ["tv", "pnp", "tv_dip"])
def test_how_bright_a_given_start_is_changes_no_method_that_leaves_it_out(method: str, scale: float) -> None:
    x = picture(1, 1, 32, 32)
    x[..., 8:24, 8:24] += 0.5
    A = EveryOtherRow()
    words = {} if method != "tv_dip" else {**SMALL, "steps": 20}
    own, given = (
        aseqdip.reconstruct(A(x) * scale, A, method, truth=x * scale, start=start, **{"device": "cpu", **words})
        for start in (None, torch.zeros(1, 1, 32, 32))
    )
    assert given.score.psnr_db == pytest.approx(own.score.psnr_db, abs=1.5), "its scale is the measurements'"


class Spy(VanillaDIP):
    """Notes what it is given."""

    name, title = "spy", "Spy"
    seen: ClassVar[list[Problem]] = []

    def start(self, problem: Problem) -> NetworkState:
        self.seen.append(problem)
        return super().start(problem)


def test_a_start_that_fits_says_how_bright_images_are() -> None:
    """Where the adjoint is far from an inverse: a tenth as many random measurements as pixels."""
    x = picture(1, 1, 32, 32)
    matrix = torch.randn(100, 1024, generator=torch.Generator().manual_seed(0)) / 100**0.5
    A = (lambda v: (matrix @ v.flatten())[None], lambda v: (matrix.T @ v.flatten()).reshape(1, 1, 32, 32))
    for scale in (1.0, 1e3):
        aseqdip.reconstruct(A[0](x), A, Spy, start=scale * (x + 0.2 * picture(1, 1, 32, 32, seed=1)), **SMALL)
    usual, brighter = Spy.seen
    assert 0.5 < float(usual.z0.max()) < 2
    assert torch.allclose(usual.y, brighter.y, rtol=1e-4), "in whatever units it is"


class Uncovered(EveryOtherRow):
    """Its image at once is 0/0 where nothing is measured."""

    def direct(self, measurements: Tensor) -> Tensor:
        return self.adjoint(measurements) / self.adjoint(torch.ones_like(measurements))


def test_a_given_start_takes_the_place_of_an_image_that_is_none() -> None:
    x, A = picture(1, 1, 32, 32), Uncovered()
    for start in (x, torch.zeros_like(x)):
        assert torch.isfinite(aseqdip.reconstruct(A(x), A, start=start, **SMALL).image).all()
    with pytest.raises(UserError, match="What the operator makes of y at once holds values that are NaN"):
        aseqdip.reconstruct(A(x), A, **SMALL)


class OwnBudget(Method[Any]):
    """A method of one's own without a network, whose steps are its own."""

    name, title, learns = "own_budget", "Own budget", False
    start = iterates = lambda *_: None  # type: ignore[assignment]

    @property
    def steps(self) -> int:
        return 3


def test_a_budget_of_its_own_is_enough() -> None:
    assert METHODS.checked("own_budget", OwnBudget, "here") is OwnBudget


class Landweber(Method[Any]):
    """A method of one's own that fits no network, and has no budget."""

    name, title, learns = "landweber", "Landweber", False
    start = iterates = lambda *_: None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": Landweber}, r"Landweber iterates and fits no network.*: extend .*Classical.* iterations"),
        ({"network_name": "skip"}, "network_name=skip: a network is chosen by network=skip"),
        ({"y": picture(1, 2, 32, 32), "complex_images": True, "truth": torch.ones(32, 32)}, r"truth \+ 0j"),
    ],
)
def test_what_would_have_no_effect_or_an_unseen_one_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        aseqdip.reconstruct(**{"y": picture(1, 1, 32, 32), "operator": Identity(), **SMALL, **settings})


def test_a_mode_without_gradients_changes_nothing() -> None:
    y, A = picture(1, 1, 32, 32), Identity()
    usual = aseqdip.reconstruct(y, A, **SMALL).image
    with torch.no_grad():
        assert torch.equal(aseqdip.reconstruct(y, A, **SMALL).image, usual)
    with torch.inference_mode():
        assert torch.equal(aseqdip.reconstruct(y + 0, A, **SMALL).image, usual)
        made = Mask(torch.ones(1, 1, 32, 32))
        with pytest.raises(UserError, match=r"made in torch\.inference_mode"):
            aseqdip.reconstruct(y, made, **SMALL)


def test_another_default_precision_is_refused() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match=r"default dtype is torch\.float64: set it back"):
            aseqdip.reconstruct(picture(1, 1, 32, 32), Identity(), **SMALL)
    finally:
        torch.set_default_dtype(torch.float32)


def test_channels_that_come_last_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    aseqdip.reconstruct(picture(1, 20, 16, 3), Identity(), "tv", device="cpu")
    assert "20 channels of 16 x 3 pixels: channels come before rows" in caplog.text


def test_functions_may_compute_in_double_precision() -> None:
    x, weights = picture(1, 1, 32, 32), torch.linspace(0.5, 1, 32, dtype=torch.float64)
    found = aseqdip.reconstruct(x * weights.float(), (lambda v: v * weights, lambda v: v * weights), "tv", device="cpu")
    assert found.image.dtype == torch.float32
    assert (found.image - x).abs().mean() < 0.1


@pytest.mark.parametrize(
    "forward", [lambda weights, x: weights * x, lambda weights, x: weights.diag_embed() @ x], ids=["elements", "matrix"]
)
def test_an_operator_in_double_precision_is_refused_in_words(forward: Callable[[Tensor, Tensor], Tensor]) -> None:
    class Weighted(Operator):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.linspace(0.5, 1, 32, dtype=torch.float64))

        def forward(self, image: Tensor) -> Tensor:
            return forward(self.weights, image)

        def adjoint(self, measurements: Tensor) -> Tensor:
            return forward(self.weights, measurements)

    with pytest.raises(UserError, match=r"single precision.*operator\.float\(\)"):
        aseqdip.reconstruct(picture(1, 1, 32, 32), Weighted(), **SMALL)
    assert aseqdip.reconstruct(picture(1, 1, 32, 32), Weighted().float(), **SMALL).image.isfinite().all()
