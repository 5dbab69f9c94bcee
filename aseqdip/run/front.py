"""``aseqdip.reconstruct``: measurements in memory and an operator in, an image out. No files, no configuration."""

import logging
import math
import time
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aseqdip.case import Case, Scoring
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods._classical import image_by
from aseqdip.methods.base import Method
from aseqdip.operators.base import Map, Operator, Scaled, values_of
from aseqdip.operators.mri import MultiCoilMRI
from aseqdip.parts import Chosen
from aseqdip.problem import Problem
from aseqdip.records import COLUMNS, Score
from aseqdip.run.given import (
    FINER,
    SINGLE,
    Given,
    borrowed,
    check_adjoint,
    check_finite,
    check_numbers,
    check_place,
    direct,
    home_of,
    measured,
    named,
    operator_of,
    say_idle,
)
from aseqdip.run.holdout import check_method, check_start, fitted_case, holds_out, to_be_fitted
from aseqdip.run.reconstruction import Reconstruction, Sink
from aseqdip.stopping import STOPPING
from aseqdip.stopping.base import StoppingRule

log = logging.getLogger(__name__)

Array = Tensor | np.ndarray


@dataclass
class Result:
    """What came out.

    Attributes:
        image: the reconstruction x, (1, channels, height, width), in the units in which A x is y; a complex one has its
            real and imaginary part as two channels.
        start: what the method began with, likewise.
        scores: of start, last, best (an oracle), ema, and stopped where a rule chose; None without a truth.
        which: of the scores is the image's: "last", "ema" or "stopped".
        curve: a column each of loss, data, psnr ...; one value for each step.
        arrays: what the method leaves besides: SGLD-DIP's "std".
        facts: what the method says of its choices.
        seconds: spent, by purpose.
    """

    image: Tensor
    start: Tensor
    scores: dict[str, Score]
    which: str
    curve: dict[str, np.ndarray]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> Score:
        """The image's own."""
        return self.scores[self.which]


@torch.inference_mode(False)  # within either of which nothing could be fitted
@torch.enable_grad()
def reconstruct(
    y: Array,
    operator: Operator | tuple[Map, Map],
    method: str | type[Method[Any]] = "aseqdip",
    *,
    truth: Array | None = None,
    start: Array | str | None = None,
    references: Iterable[Array] = (),
    noise_std: float | None = None,
    complex_images: bool | None = None,
    network: str = "unet",
    ema: float | None = None,
    stop: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    name: str = "image",
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Reconstruct an image x from measurements y = A x (+ noise).

    Measurements and operator are scaled so that images are of order one and ||A|| is about one, as the methods need it;
    where A is not linear, give images of order one. What has no effect, and an adjoint that is none, is said in a
    warning.

    Args:
        y: the measurements, as the operator gives them; what is in a hole, or at points of k-space that are not
            sampled, is left out.
        operator: A; or, for a linear one, the two functions x -> A x and y -> A^H y. An image is
            (1, channels, height, width).
        method: aseqdip, vanilla_dip, tv_dip ...; or a class of your own that extends Method (docs/extending.md).
        truth: the true image if it is known, to be scored against; no method sees it. Range of PSNR and SSIM: 0 to its
            maximum.
        start: the start image, or the classical method that makes it: tv, cg, wavelet; default: the operator's one-step
            reconstruction ``operator.direct(y)``.
        references: images of other objects, for ref_guided_dip.
        noise_std: standard deviation of the noise in y per real number, for the methods and rules that need it.
        complex_images: whether two channels are a real and an imaginary part; default: for MultiCoilMRI.
        network: unet, skip or s2s; its own settings are network_width=32, network_depth=3 ... Without a sigmoid
            unless network_sigmoid=True, which is for images in [0, 1].
        ema: decay of a running average of iterates that is to be the result; default: the method's own.
        stop: a stopping rule whose choice is to be the result; default: the method's own.
        seed: of all random numbers, with the name.
        device: as on the command line.
        precision: as on the command line.
        name: of the image, in messages.
        progress: whether to show a progress bar.
        settings: steps, lr, residual, and what the method and the stopping rule have: N=5, lam=0.5, window=50. Where
            a task has another default (``--help tv_dip``), it is that of the operator's; of an operator of your own
            and of two functions, the usual one.

    Raises UserError, naming what was expected, for a setting there is not, and for shapes that do not fit.
    """
    part = METHODS[method] if isinstance(method, str) else METHODS.checked(named(method), method, "method")
    check_numbers(noise_std, ema)
    if torch.get_default_dtype() != torch.float32:
        raise UserError(f"torch's default dtype is {torch.get_default_dtype()}: set it back to torch.float32.")
    chosen = stop if stop is not None else part.defaults.get("stop", "none")
    rule = None if chosen == "none" or not (part.iterative or chosen == "holdout") else STOPPING[chosen]
    A = operator_of(operator)
    if any(tensor.is_inference() for tensor in (*A.parameters(), *A.buffers())):
        raise UserError("The operator was made in torch.inference_mode, where nothing can be fitted: make it outside.")
    given = Given(settings, reconstruct, A)
    options = given.options(part.Options)
    shared = given.shared(network, part)
    picked = None if rule is None else Chosen[StoppingRule](chosen, rule, given.options(rule.Options))
    given.refuse_the_rest(part.name)
    none = isinstance(references, Sized) and not len(references)
    asked: dict[str, Any] = {"start": start, "ema": ema, "stop": stop, "references": None if none else references}
    asked["network"] = None if network == "unet" else network
    say_idle(part, options, [*settings, *(name for name, value in asked.items() if value is not None)])
    signed = isinstance(A, MultiCoilMRI) if complex_images is None else complex_images
    if holds_out(picked) and start is not None and not isinstance(start, str):
        raise UserError("stop=holdout makes the start image of what it keeps: leave start out, or name a method.")
    home = home_of(A, y)
    case, unit = _case(A, y, home, None if isinstance(start, str) else start, truth, noise_std, signed, name, seed)
    if isinstance(start, str):
        check_start(picked, start, ("an image",), part, case.problem.kind())
    engine = Engine(device, precision)
    made = part(options, shared, engine, signed)
    check_method(picked, part, options, shared, case.problem.kind())
    average = part.defaults.get("ema", 0.0) if ema is None else ema
    with borrowed(A, home), engine.current():
        case = fitted_case(case, picked).to(engine.device)
        check_place(A, case.problem, home)
        case.problem.references = _wanted(made, case, references, unit)
        begin = time.perf_counter()
        if isinstance(start, str):
            for problem in to_be_fitted(case, picked):
                problem.z0 = image_by(start, problem, engine, signed)
        seconds = time.perf_counter() - begin
        run = Reconstruction(case, made, picked, average)
        run.clock.seconds["start"] += seconds
        bar = [_Bar(name, made.steps)] if progress else []
        try:
            run.run(bar)
        finally:
            for one in bar:
                one.bar.close()
        return _result(run, unit)


def _result(run: Reconstruction, unit: float) -> Result:
    """What a finished run has, in the user's units."""
    arrays = run.arrays()  # first: a method says facts of them
    table, facts = np.asarray(run.scores.rows, dtype=float).T, run.facts()
    if "sigma_used" in facts:
        facts["sigma_used"] *= unit
    return Result(
        image=run.result().cpu() * unit,
        start=run.case.problem.z0.cpu() * unit,
        scores=run.scores.summary(),
        which=run.scores.headline,
        curve=dict(zip(COLUMNS, table, strict=True)),
        arrays={key: array.cpu() * unit for key, array in arrays.items()},
        facts=facts,
        seconds=dict(run.clock.seconds),
    )


def _case(
    A: Operator,
    y: Array,
    home: torch.device,
    start: Array | None,
    truth: Array | None,
    noise_std: float | None,
    signed: bool,
    name: str,
    seed: int,
) -> tuple[Case, float]:
    """The case, scaled, and what one in its images is in the user's."""
    y = values_of(y).to(home, copy=True)  # of the user's, which an inference mode may have made
    y = measured(A, y.to(torch.complex64 if y.is_complex() else torch.float32))
    check_finite(y, "y")
    z0 = direct(A, y) if start is None else values_of(start).to(home, copy=True)
    if z0.ndim != 4 or z0.shape[0] != 1 or z0.is_complex():
        raise UserError(
            f"The start image is {tuple(z0.shape)}, {z0.dtype}: expected a real (1, channels, height, width); a "
            "complex image has its real and imaginary part as two channels. Give y the shape that the operator's "
            "adjoint or direct needs."
        )
    if signed and z0.shape[1] != 2:
        raise UserError(
            f"complex_images needs two channels, real and imaginary part; the start image has {z0.shape[1]}."
        )
    if z0.shape[-1] <= 4 < z0.shape[1]:
        log.warning(
            "Images of %d channels of %d x %d pixels: channels come before rows and columns, (1, 3, height, width).",
            *z0.shape[1:],
        )
    z0 = z0.detach().float()
    check_finite(z0, "What the operator makes of y at once" if start is None else "The start image")
    like = A(z0)
    if like.shape != y.shape:
        raise UserError(f"The operator gives measurements of shape {tuple(like.shape)}, but y has {tuple(y.shape)}.")
    if like.is_complex() != y.is_complex():
        kinds = ["complex" if one.is_complex() else "real" for one in (like, y)]
        raise UserError(f"The operator gives {kinds[0]} measurements, but y is {kinds[1]}.")
    if like.dtype in FINER:
        raise UserError(f"The operator gives {like.dtype} of an image of {z0.dtype}.{SINGLE}")
    factor, unit, scaled = 1.0, 1.0, A
    if A.linear:
        # its bound, nearly met; networks may be trained on maps of unit sum of squares
        if isinstance(A, MultiCoilMRI) and type(A).forward is MultiCoilMRI.forward:
            size, near_one = float(A.maps.abs().square().sum(-3).max().sqrt()), 1e-3
        else:
            size, near_one = A.norm(tuple(z0.shape)), 0.1
        if not 0 < size < math.inf:
            raise UserError(f"The operator's norm is {size:g}: A x or A^H y is the same for all images, or not finite.")
        check_adjoint(A, z0)
        if abs(size - 1) >= near_one:
            factor = 1 / size
            scaled = Scaled(A, factor)
            z0 = scaled.direct(y * factor).detach().float() if start is None else z0
        unit = _brightness(z0 if start is None else _as_bright_as_told(A, y, z0, like), signed) or 1.0
        unit = 1.0 if 0.5 < unit < 2 else unit
    elif not 0.1 < (peak := float(z0.abs().max())) < 10:
        log.warning("A is not linear, so nothing is scaled, and the start image reaches %.3g: methods expect 1.", peak)
    noise = None if noise_std is None else noise_std * factor / unit
    problem = Problem(y * (factor / unit), scaled, z0 / unit, name, seed, noise)
    support = torch.ones(1, 1, *z0.shape[-2:], device=z0.device) if signed else None
    case = Case(problem, None, signed, support, bounded=False)
    if truth is not None:
        case.truth = _like(truth, z0, "truth").to(z0) / unit
        shown = case.show(case.truth)
        if not float(shown.max()) > 0:
            raise UserError("truth: its largest value is what PSNR is measured by, so it must be above 0; shift both.")
        case.scoring = Scoring(shown, float(shown.max()))
    return case, unit


def _as_bright_as_told(A: Operator, y: Tensor, start: Tensor, like: Tensor) -> Tensor:
    """A given start image, which may be of any scale, at that at which A of it, ``like``, fits y; else A's own image.

    A's own is a poor judge of brightness where A^H is far from an inverse; a start that fits at no scale is none.
    """
    along, own = float((like.conj() * y).real.sum()), float(like.abs().square().sum())
    if along > 0.1 * math.sqrt(own) * float(y.abs().square().sum()) ** 0.5:
        return start * (along / own)
    try:
        found = direct(A, y).detach()
    except UserError:
        return start
    return found.float() if found.shape == start.shape and torch.isfinite(found).all() else start


def _brightness(image: Tensor, signed: bool) -> float:
    """Of all but the brightest pixels, which may be outliers."""
    seen = torch.hypot(image[:, 0], image[:, 1]) if signed else image.abs()
    return float(np.quantile(seen.cpu().numpy(), 0.999))


def _like(image: Array, z0: Tensor, what: str) -> Tensor:
    """An image in the start image's shape; axes of length 1 may be left out, and a complex one is two channels."""
    tensor = values_of(image)
    check_finite(tensor, f"The {what}")
    if tensor.is_complex():
        tensor = torch.stack((tensor.real, tensor.imag), dim=-3)
    if tensor.numel() != z0.numel() or tensor.shape[-2:] != z0.shape[-2:]:
        half = 2 * tensor.numel() == z0.numel() and z0.shape[1] == 2
        hint = f"; of complex images a real one is given as {what} + 0j" if half else ""
        raise UserError(
            f"The {what} has shape {tuple(tensor.shape)}, the start image {tuple(z0.shape)}: they must agree{hint}."
        )
    return tensor.float().reshape(z0.shape)


def _wanted(method: Method[Any], case: Case, references: Iterable[Array], unit: float) -> Sequence[tuple[str, Tensor]]:
    z0 = case.problem.z0
    if method.wants(method.options) == "truth":
        if case.truth is None:
            raise UserError("input=oracle needs the true image: give truth=..., or use another input.")
        return [("truth", case.truth)]
    found = [(f"reference {i}", _like(r, z0, "reference").to(z0) / unit) for i, r in enumerate(references)]
    if method.wants(method.options) == "references" and (not found or method.pool is not None):
        said = f"; pool={method.pool}, a folder, is for the command line" if method.pool is not None else ""
        raise UserError(f"method={method.name} needs images of other objects: give references=[...]{said}.")
    return found


class _Bar(Sink):
    """Steps, and the PSNR where it is known."""

    def __init__(self, name: str, total: int) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, desc=name, unit="it", mininterval=0.5)

    def rows(self, rows: Any) -> None:
        psnr = rows[-1][COLUMNS.index("psnr")]
        if psnr == psnr:
            self.bar.set_postfix(PSNR=f"{psnr:.2f} dB", refresh=False)
        self.bar.update(len(rows))
