"""From an image or a measured scan to a problem and its scoring: the only place where tasks and operators meet."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aseqdip.case import Case, Scoring
from aseqdip.config import Config
from aseqdip.data.base import Items, Sample, center_crop, fit
from aseqdip.data.picture import read_picture
from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.operators.base import Operator
from aseqdip.operators.blur import CameraBlur, MotionBlur, trajectory_kernel
from aseqdip.operators.coils import simulated_coils, smooth_phase
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask, center_hole, random_hole
from aseqdip.operators.mri import MASKS, MultiCoilMRI, cartesian_mask, fft2c, ifft2c, to_channels, to_complex
from aseqdip.problem import Problem, generator

log = logging.getLogger(__name__)

ROUNDING = 1e-3  # by which the values of an image may leave 0 to 1


def make_case(cfg: Config, name: str, sample: Sample) -> Case:
    """The case of one sample under a config. UserError if data, task and operator cannot go together."""
    if cfg.task.name == "mri":
        case = _mri(cfg, name, sample)
    else:
        assert sample.image is not None
        if sample.image.is_complex() and bool((sample.image.imag != 0).any()):
            raise UserError(
                f"task={cfg.task.name} needs real images, but {sample.source} is complex: use task=mri, or another dataset."
            )
        image = (sample.image.real if sample.image.is_complex() else sample.image)[None].float()
        low, high = float(image.min()), float(image.max())
        if cfg.truth == "known" and not -ROUNDING <= low <= high <= 1 + ROUNDING:
            raise UserError(
                f"{sample.source} has values from {low:g} to {high:g}; task={cfg.task.name} needs 0 to 1: rescale it."
            )
        image = image.clamp(0, 1) if cfg.truth == "known" else image
        case = _ct(cfg, name, image) if cfg.task.name == "ct" else _picture(cfg, name, image)
    # a multiple of 2^depth is reached by reflecting the borders, which needs at least as many pixels; and a single pixel
    # at the coarsest scale has no variance to normalise by
    multiple, side = 2**cfg.network.depth, min(case.problem.z0.shape[-2:])
    if side < multiple or max(case.problem.z0.shape[-2:]) <= multiple:
        raise UserError(
            f"{name} is {side} pixels on its short side, but network={cfg.network.name} with depth={cfg.network.depth} "
            f"needs at least {multiple}, and more on the other: use a larger image or a smaller network.depth."
        )
    if case.scoring is not None and side < 11:
        raise UserError(f"{name} is {side} pixels on its short side: SSIM needs at least 11.")
    case.info["source"] = sample.source
    for note in sample.notes:
        log.warning("%s: %s", name, note)
    if sample.notes:
        case.info["notes"] = sample.notes
    return case


def references(cfg: Config, sample: Sample, like: Tensor, pool: Items) -> Iterator[tuple[str, Tensor]]:
    """Names and images of the pool's other patients, shaped like a problem's z0: MR images are cropped or
    padded with zeros to it; others and scans of another size are left out."""
    for name, load in pool.items():
        try:
            other = load()
        except UserError as error:  # one bad file of a pool is no reason to refuse the others
            log.warning("%s cannot be a reference and is left out: %s", name, error)
            continue
        if (other.patient or other.source) == (sample.patient or sample.source) or other.mask is not None:
            continue
        if cfg.task.name == "mri" and other.image is not None:  # coils would be simulated, and combined again
            image = to_channels(_with_phase(cfg, name, fit(other.image.mean(0), *like.shape[-2:]))[None, None])
        elif cfg.task.name == "mri":
            kspace, maps, _ = _coil_data(cfg, name, other)
            image = to_channels((maps.conj() * ifft2c(kspace)).sum(0)[None, None])
        else:
            assert other.image is not None
            image = other.image[None].float()
            image = _slice(cfg, image) if cfg.task.name == "ct" else _resize(cfg, image)
        if image.shape == like.shape:
            yield name, image


OPERATORS = {"mri": "mri", "ct": "ct", "denoising": "identity", "inpainting": "mask", "deblurring": "blur"}


def check_combination(cfg: Config) -> None:
    """Raise UserError for choices that are each fine and cannot go together, before any data is read."""
    task, needed = cfg.task.name, OPERATORS[cfg.task.name]
    if cfg.operator.name != needed:
        raise UserError(
            f"task={task} cannot use operator={cfg.operator.name}: its measurements need operator={needed}."
        )
    if task != "mri" and cfg.dataset.reader == "kspace":
        raise UserError(f"task={task} needs images, but dataset={cfg.dataset.name} holds k-space: use task=mri.")
    if task == "mri" and cfg.mask not in MASKS:
        raise UserError(f"mask={cfg.mask}: for task=mri expected one of {', '.join(MASKS)}.")
    if cfg.truth == "none" and task in ("mri", "ct"):
        raise UserError(
            f"truth=none is for pictures, and task={task} reads no bare measurement: an undersampled MRI scan is "
            "recognised by the 'mask' stored in its HDF5 file (dataset=kspace)."
        )
    if cfg.start != "paper" and (cfg.start, task) not in (("adjoint", "ct"), ("mean", "inpainting")):
        raise UserError(
            f"start={cfg.start} is another start image for {'CT' if cfg.start == 'adjoint' else 'in-painting'} than the paper's; "
            f"task={task} has none: use start=paper."
        )
    if cfg.method.name == "rethinking_dip" and (task != "denoising" or not cfg.sigma):
        raise UserError(
            "method=rethinking_dip is for task=denoising with sigma above 0: its loss estimates the error (SURE), which "
            f"needs the image plus Gaussian noise of known size; found task={task}, sigma={cfg.sigma:g}."
        )
    if cfg.stop == "zero" and cfg.method.name != "rethinking_dip":
        raise UserError(
            f"stop=zero waits for a loss below zero, which method={cfg.method.name} never has: use stop=wmv or stop=emv."
        )
    if cfg.stop == "discrepancy" and cfg.method.name == "rethinking_dip":
        raise UserError(
            "stop=discrepancy compares ||A x - y||^2 with the noise, which method=rethinking_dip does not compute: use its stop=zero."
        )
    if cfg.input_update == "reflection" and task in ("mri", "ct") and cfg.method.name == "aseqdip":
        raise UserError(f"input_update=reflection (2y - f) needs measurements that are an image; task={task} has none.")
    if cfg.input_update == "data_consistent" and cfg.kernel == "nonlinear" and task == "deblurring":
        raise UserError(
            "input_update=data_consistent needs a linear operator: use kernel=motion or input_update=network."
        )


#: what the start image is called under its picture
START = {"mri": "zero-filled", "ct": "filtered back-projection"}


def setting(cfg: Config) -> str:
    """The task's setting in one word: accel4, views30, sigma15, hiar0.1, nonlinear."""
    return {
        "mri": f"accel{cfg.accel:g}",
        "ct": f"views{cfg.views}",
        "denoising": f"sigma{cfg.sigma:g}",
        "inpainting": f"hiar{cfg.hiar:g}" if cfg.mask == "center" else f"mask-{Path(cfg.mask).stem}",
        "deblurring": cfg.kernel,
    }[cfg.task.name]


# --- MRI ---------------------------------------------------------------------------------------------------------


def _magnitude(image: Tensor) -> Tensor:
    return to_complex(image).abs()


def _mri(cfg: Config, name: str, sample: Sample) -> Case:
    """y = s (M F S x + noise), with 1/s the 99.9th percentile of the zero-filled magnitude (no leak from the truth)."""
    kspace, maps, how = _coil_data(cfg, name, sample)
    coils = ifft2c(kspace)
    truth = None if sample.mask is not None else (maps.conj() * coils).sum(0)
    noise_std = cfg.noise * float(coils.abs().max()) if truth is not None else 0.0
    if noise_std:
        rng = generator(cfg.seed, name, "noise")
        # complex numbers of variance 1: 1/2 for each component
        kspace = kspace + noise_std * torch.randn(kspace.shape, generator=rng, dtype=torch.complex64)
    mask = _sampling(cfg, name, kspace.shape[-1]) if sample.mask is None else sample.mask
    operator = MultiCoilMRI(maps, mask)
    y = operator.sample(kspace[None])
    level = torch.quantile(_magnitude(operator.adjoint(y)).flatten(), 0.999)
    if not level > 0:
        raise UserError(f"{sample.source}: the sampled k-space is zero everywhere; nothing can be reconstructed.")
    y = y / level
    support = ((maps.abs() ** 2).sum(0) > 0).float()[None, None]
    scoring = None
    if truth is not None:
        magnitude = (truth.abs()[None, None] / level) * support
        scoring = Scoring(magnitude, float(magnitude.max()))
    per_component = noise_std / 2**0.5 / float(level)
    problem = Problem(y, operator, operator.direct(y), name, cfg.seed, per_component or None)
    info = {
        "maps": how,
        "coils": maps.shape[0],
        "scale": float(1 / level),
        "sampled_columns": int(mask.sum()),
        "columns": mask.numel(),
        "prospective": sample.mask is not None,
    }
    image = None if truth is None else to_channels(truth[None, None] / level)
    return Case(problem, scoring, signed=True, support=support, info=_normed(info, problem), truth=image)


def _coil_data(cfg: Config, name: str, sample: Sample) -> tuple[Tensor, Tensor, str]:
    """Full (or prospectively sampled) k-space, maps of unit sum of squares, and where the maps come from."""
    size = None if cfg.size == "native" else int(cfg.size)
    if sample.kspace is None:
        assert sample.image is not None
        image = sample.image.mean(0)  # one channel already, unless it is a colour picture
        image = image if size is None else center_crop(image, size, size)
        shape = (int(image.shape[-2]), int(image.shape[-1]))
        maps = simulated_coils(cfg.operator.coils, shape, generator(cfg.seed, name, "coils"))
        return fft2c(maps * _with_phase(cfg, name, image)), maps, "simulated"
    kspace, maps_stored = sample.kspace, sample.maps
    if size is not None:
        # a prospectively undersampled scan has gaps along its columns: only the fully sampled readout can be cropped
        columns = size if sample.mask is None else kspace.shape[-1]
        kspace = fft2c(center_crop(ifft2c(kspace), size, columns))
        maps_stored = None if maps_stored is None else center_crop(maps_stored, size, columns)
    if maps_stored is None:
        return kspace, _espirit_maps(cfg, kspace, sample.mask), "espirit"
    norm = (maps_stored.abs() ** 2).sum(0).sqrt()
    return kspace, torch.where(norm > 0, maps_stored / norm.clamp_min(1e-12), 0), "stored"


def _with_phase(cfg: Config, name: str, image: Tensor) -> Tensor:
    """The image, given a smooth phase if it has none: no scan is purely real."""
    if image.is_complex() and image.imag.any():
        return image
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    return image * smooth_phase(shape, generator(cfg.seed, name, "phase"))


def _espirit_maps(cfg: Config, kspace: Tensor, mask: Tensor | None) -> Tensor:
    """ESPIRiT maps from the fully sampled centre, kept in ``outputs/cache`` under a name made of all they depend on."""
    rows = columns = cfg.operator.calibration
    if mask is not None:
        columns = min(columns, _center_width(mask))
    rows, columns = min(rows, kspace.shape[-2]), min(columns, kspace.shape[-1])
    centre = center_crop(kspace, rows, columns).contiguous()
    key = hashlib.sha256(f"{tuple(kspace.shape)} {rows}x{columns} v1".encode() + centre.numpy().tobytes()).hexdigest()
    cached = Path(cfg.outputs) / "cache" / f"espirit-{key[:16]}.npy"
    if cached.exists():
        return torch.from_numpy(np.load(cached, allow_pickle=False))
    from aseqdip.operators.espirit import espirit

    maps = espirit(kspace, calibration=(rows, columns))
    write_atomically(cached, lambda file: np.save(file, maps.numpy()))
    return maps


def _center_width(mask: Tensor) -> int:
    """Width of the largest block around the middle column that is fully sampled."""
    n = mask.numel()
    return next((w for w in range(n, 0, -1) if bool(mask[(n - w + 1) // 2 :][:w].all())), 0)


def _sampling(cfg: Config, name: str, width: int) -> Tensor:
    fraction = cfg.operator.center_fraction or 0.32 / cfg.accel
    # fastMRI's masks draw from NumPy's legacy generator; one of our own, seeded for each scan
    rng = np.random.RandomState(generator(cfg.seed, name, "mask").initial_seed() % 2**32)
    return cartesian_mask(cfg.mask, width, cfg.accel, fraction, rng)


# --- CT ----------------------------------------------------------------------------------------------------------

#: attenuation of water at the mean energy of a 120 kV beam, per mm, and the field of view; only for photon noise
WATER_PER_MM, FIELD_OF_VIEW_MM = 0.02, 350.0


def _ct(cfg: Config, name: str, image: Tensor) -> Case:
    """y = A x with A = R / ||R||, post-log; with ``photons``, Poisson counts before the log."""
    image = _slice(cfg, image)
    operator = ParallelBeam(size=image.shape[-1], views=cfg.views)
    y = operator(image)
    if cfg.photons is not None:
        per_pixel = (
            WATER_PER_MM * (cfg.dataset.hu_high - cfg.dataset.hu_low) / 1000 * FIELD_OF_VIEW_MM / image.shape[-1]
        )
        counts = torch.poisson(
            cfg.photons * torch.exp(-per_pixel * operator.radon_norm * y),
            generator(cfg.seed, name, "photons"),
        )
        y = -torch.log(counts.clamp_min(1) / cfg.photons) / (per_pixel * operator.radon_norm)
    start = operator.direct(y) if cfg.start == "paper" else _fitted_adjoint(operator, y)
    problem = Problem(y, operator, start.clamp(0, 1), name, cfg.seed)
    info = {"operator_norm": operator.radon_norm, "scaled_by_norm": True}
    return Case(problem, Scoring(image, 1.0), info=info, truth=image)


def _fitted_adjoint(A: Operator, y: Tensor) -> Tensor:
    """A^H y times the factor with which its measurements come closest to y."""
    back = A.adjoint(y)
    again = A(back)
    return back * ((again * y).sum() / again.square().sum().clamp_min(1e-12))


def _slice(cfg: Config, image: Tensor) -> Tensor:
    """One channel, square, of the size asked for."""
    return _resize(cfg, center_crop(image.mean(1, keepdim=True), *[min(image.shape[-2:])] * 2))


# --- pictures ----------------------------------------------------------------------------------------------------


def _resize(cfg: Config, image: Tensor) -> Tensor:
    """Bicubic to ``size`` x ``size``, unless native."""
    if cfg.size == "native" or image.shape[-2:] == (int(cfg.size),) * 2:
        return image
    resized = F.interpolate(image, size=(int(cfg.size),) * 2, mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def _picture(cfg: Config, name: str, image: Tensor) -> Case:
    """y = A x + n, n of standard deviation sigma/255, not clipped; z0 = y (paper, Sec. 3.2)."""
    original, image = image.shape, _resize(cfg, image)
    if cfg.truth == "none" and cfg.sigma and image.shape != original:
        log.warning("%s is resized, which changes its noise from sigma=%g: use size=native.", name, cfg.sigma)
    operator = _picture_operator(cfg, name, *image.shape[-2:])
    y = image
    if cfg.truth == "known":
        y = operator(image)
        noise = torch.randn(y.shape, generator=generator(cfg.seed, name, "noise"))
        y = operator(y + cfg.sigma / 255 * noise) if isinstance(operator, Mask) else y + cfg.sigma / 255 * noise
    elif isinstance(operator, Mask):
        y = operator(image)
    z0 = operator.direct(y)
    hole = 1 - operator.mask if isinstance(operator, Mask) else None
    if hole is not None and cfg.start == "mean":
        z0 = z0 + hole * (y.sum((-2, -1), keepdim=True) / (1 - hole).sum((-2, -1), keepdim=True))
    problem = Problem(y, operator, z0, name, cfg.seed, cfg.sigma / 255 or None)
    scoring = Scoring(image, 1.0, hole) if cfg.truth == "known" else None
    truth = image if cfg.truth == "known" else None
    return Case(problem, scoring, info=_normed({}, problem), truth=truth)


def _picture_operator(cfg: Config, name: str, height: int, width: int) -> Operator:
    if cfg.task.name == "denoising":
        return Identity()
    if cfg.task.name == "deblurring":
        kernel = trajectory_kernel(cfg.operator.kernel_size, generator(cfg.seed, name, "kernel"))
        return MotionBlur(kernel) if cfg.kernel == "motion" else CameraBlur(kernel)
    if cfg.mask == "center":
        return Mask(center_hole(height, width, cfg.hiar))
    if cfg.mask == "random":
        return Mask(random_hole(height, width, cfg.operator.missing, generator(cfg.seed, name, "mask")))
    path = Path(cfg.mask)
    if not path.is_file():
        raise UserError(f"mask={cfg.mask}: expected center, random, or a picture file (white = known pixel).")
    mask = (read_picture(path).mean(0) > 0.5).float()
    if mask.shape != (height, width):
        raise UserError(
            f"The mask {path} is {mask.shape[0]} x {mask.shape[1]}, the image {height} x {width}: they must agree."
        )
    return Mask(mask[None, None])


def _normed(info: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """The facts with ||A|| added, null for a non-linear operator."""
    norm = problem.operator.norm(tuple(problem.z0.shape)) if problem.operator.linear else None
    return {**info, "operator_norm": norm}
