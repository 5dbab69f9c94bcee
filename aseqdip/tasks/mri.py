"""Multi-coil MRI from undersampled k-space."""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aseqdip.case import Case, Scoring
from aseqdip.data import load_array_or_none
from aseqdip.data.base import Sample, center_crop, central, fit
from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.metrics import estimated_sigma
from aseqdip.operators.coils import simulated_coils, smooth_phase
from aseqdip.operators.mri import (
    MASKS,
    MultiCoilMRI,
    cartesian_mask,
    center_width,
    centre_side,
    fft2c,
    ifft2c,
    to_channels,
    to_complex,
)
from aseqdip.parts import knob
from aseqdip.problem import Kind, Problem
from aseqdip.tasks.base import Task, operator_norm


class MRI(Task):
    """y = s (M F S x + noise), with 1/s the 99.9th percentile of the zero-filled magnitude (no leak from the truth).

    Paper: 15 coils, 320 x 320, 4x and 8x.
    """

    name = "mri"
    title = "MRI"
    defaults = {"size": "320", "dataset": "brain", "network": "medium"}
    start_title = "zero-filled"
    takes = ("image", "kspace")
    signed = True

    @dataclass
    class Options:
        accel: float = knob("acceleration factor", 4.0, above=1)
        mask: str = knob("columns of k-space that are sampled", "random", choices=MASKS)
        noise: float = knob(
            "standard deviation of the complex noise added to k-space, relative to the peak of the coil images; of a "
            "scan that was undersampled on the scanner: of the noise it has",
            0.0,
            low=0,
        )
        center_fraction: float | None = knob(
            "fully sampled central part of k-space; default 0.32/accel (0.08 at 4x, 0.04 at 8x)", None, above=0, high=1
        )
        coils: int = knob("coils simulated for images without k-space", 15, low=1)
        calibration: int = knob("side of the central k-space block ESPIRiT maps are estimated from", 24, low=6)

    @property
    def setting(self) -> str:
        return f"accel{self.options.accel:g}" + ("-own" if self.options.mask == "own" else "")

    @property
    def setting_title(self) -> str:
        return f"{self.options.accel:g}x" + (", own mask" if self.options.mask == "own" else "")

    def settled(self, sample: Sample) -> Any:
        if sample.mask is None:
            return self.options
        accel = round(sample.mask.numel() / int(sample.mask.sum()), 2)
        unused = {name: getattr(self.Options(), name) for name in ("center_fraction", "coils")}
        return replace(self.options, accel=accel, mask="own", **unused)

    def check(self) -> None:
        if self.truth == "none":
            raise UserError(
                "truth=none is for pictures, and task=mri reads no bare measurement: an undersampled scan is "
                "recognised by the 'mask' stored in its HDF5 file (dataset=kspace)."
            )
        if self.size is not None:
            self._sampling("", self.size)  # raises where the centre alone is too much
            if self.size <= self.options.accel:
                raise UserError(
                    f"accel={self.options.accel:g}: of size={self.size} columns one or none would be sampled: use a "
                    "smaller accel or a larger size."
                )

    def kind(self) -> Kind:
        return Kind(self.name, noise=self.options.noise)

    def make(self, name: str, sample: Sample) -> Case:
        kspace, maps, how = self._coil_data(name, sample)
        truth, noise_std, own = None, 0.0, 0.0
        if sample.mask is None:
            coils = ifft2c(kspace)
            truth = (maps.conj() * coils).sum(0)
            noise_std = self.options.noise * float(coils.abs().max())
        if noise_std:  # complex numbers of variance 1: 1/2 for each component
            own = 0.0 if sample.kspace is None else estimated_sigma(torch.cat((coils.real, coils.imag)))
            drawn = torch.randn(kspace.shape, generator=self.rng(name, "noise"), dtype=torch.complex64)
            kspace = kspace + noise_std * drawn
        if sample.mask is None:
            scan = sample.scan or sample.origin.volume or name
            mask = self._sampling(scan, kspace.shape[-1])  # one for all slices of a scan
        else:
            mask, noise_std = sample.mask, self.options.noise * float(ifft2c(kspace).abs().max())
            what = f"{int(mask.sum())} of {mask.numel()} {'columns' if mask.dim() == 1 else 'points'}"
            accel = mask.numel() / int(mask.sum())
            sample.notes.append(
                f"undersampled on the scanner, {accel:.2f}x ({what}): accel, mask and center_fraction have no effect"
            )
        operator = MultiCoilMRI(maps, mask)
        y = operator.sample(kspace[None])
        level = _bright(to_complex(operator.adjoint(y)).abs().flatten())
        if not level > 0:
            raise UserError(f"{sample.source}: the sampled k-space is zero everywhere; nothing can be reconstructed.")
        y = y / level
        per_component = noise_std / 2**0.5 / float(level)
        noise = per_component or (0.0 if sample.kspace is None else None)
        if noise and own:
            noise = math.hypot(noise, own / float(level))
            sample.notes.append("noise is added to the scan's own; methods are told both, the scan's by estimate")
        problem = Problem(y, operator, operator.direct(y), name, self.seed, noise)
        support = ((maps.abs() ** 2).sum(0) > 0).float()[None, None]
        scoring, image = None, None
        if truth is not None:
            image, magnitude = to_channels(truth[None, None] / level), (truth.abs()[None, None] / level) * support
            scoring = Scoring(magnitude, float(magnitude.max()))
        facts = {
            "maps": how,
            "coils": maps.shape[0],
            "scale": float(1 / level),
            "sampled_columns" if mask.dim() == 1 else "sampled_points": int(mask.sum()),
            "columns" if mask.dim() == 1 else "points": mask.numel(),
            "prospective": sample.mask is not None,
            "operator_norm": operator_norm(problem),
        }
        measured = sample.image if sample.kspace is None else sample.kspace
        assert measured is not None
        region = central(measured.shape[-2:], *kspace.shape[-2:])
        return Case(problem, scoring, signed=True, support=support, facts=facts, truth=image, region=region)

    def reference(self, name: str, sample: Sample, like: Tensor) -> Tensor:
        if sample.image is not None:  # coils would be simulated, and combined again
            image = self._with_phase(name, fit(sample.image.mean(0), *like.shape[-2:]))
            return to_channels(image[None, None])
        kspace, maps, _ = self._coil_data(name, sample)
        return to_channels((maps.conj() * ifft2c(kspace)).sum(0)[None, None])

    def _coil_data(self, name: str, sample: Sample) -> tuple[Tensor, Tensor, str]:
        """Full (or prospectively sampled) k-space, maps of unit sum of squares, and where the maps come from."""
        size = self.size
        if sample.kspace is None:
            assert sample.image is not None
            image = sample.image.mean(0)  # one channel already, unless it is a colour picture
            image = image if size is None else center_crop(image, size, size)
            shape = (int(image.shape[-2]), int(image.shape[-1]))
            maps = simulated_coils(self.options.coils, shape, self.rng(name, "coils"))
            return fft2c(maps * self._with_phase(name, image)), maps, "simulated"
        kspace, how = sample.kspace, "stored" if sample.maps is not None else "espirit"
        if sample.maps is None:  # before anything is cut off, which would leave objects that end where the image does
            maps = self._espirit_maps(kspace, sample.mask)
        else:
            maps = sample.maps
            if self.options.calibration != self.Options.calibration:
                sample.notes.append("it brings its coil maps: calibration has no effect")
        if size is not None:
            # a prospectively undersampled scan has gaps along its columns: only the full readout can be cropped
            columns = size if sample.mask is None else kspace.shape[-1]
            rows = size if sample.mask is None or sample.mask.dim() == 1 else kspace.shape[-2]
            kspace = fft2c(center_crop(ifft2c(kspace), rows, columns)) if rows == size else kspace
            maps = center_crop(maps, rows, columns)
        norm = (maps.abs() ** 2).sum(0).sqrt()
        return kspace, torch.where(norm > 0, maps / torch.where(norm > 0, norm, 1), 0), how

    def _with_phase(self, name: str, image: Tensor) -> Tensor:
        """The image, given a smooth phase if it has none: no scan is purely real."""
        if image.is_complex() and image.imag.any():
            return image
        shape = (int(image.shape[-2]), int(image.shape[-1]))
        return image * smooth_phase(shape, self.rng(name, "phase"))

    def _espirit_maps(self, kspace: Tensor, mask: Tensor | None) -> Tensor:
        """ESPIRiT maps from the fully sampled centre, kept in the cache under a name made of all they depend on."""
        rows = columns = self.options.calibration
        if mask is not None:
            columns = min(columns, center_width(mask) if mask.dim() == 1 else centre_side(mask))
            rows = rows if mask.dim() == 1 else columns
        rows, columns = min(rows, kspace.shape[-2]), min(columns, kspace.shape[-1])
        centre = center_crop(kspace, rows, columns).contiguous()
        key = hashlib.sha256(
            f"{tuple(kspace.shape)} {rows}x{columns} v1".encode() + centre.numpy().tobytes()
        ).hexdigest()
        cached = None if self.cache is None else self.cache / f"espirit-{key[:16]}.npz"
        kept = None if cached is None else load_array_or_none(cached, kspace.shape, np.complex64)
        if kept is not None:
            return torch.from_numpy(kept)
        from aseqdip.operators.espirit import espirit

        maps = espirit(kspace, calibration=(rows, columns))
        if cached is not None:
            write_atomically(cached, lambda file: np.savez(file, array=maps.numpy()))
        return maps

    def _sampling(self, scan: str, width: int) -> Tensor:
        o = self.options
        # fastMRI's masks draw from NumPy's legacy generator; one of our own, seeded for each scan
        rng = np.random.RandomState(self.rng(scan, "mask").initial_seed() % 2**32)
        return cartesian_mask(o.mask, width, o.accel, o.center_fraction or 0.32 / o.accel, rng)


def _bright(values: Tensor) -> Tensor:
    """The 99.9th percentile; PyTorch's own refuses more than 2^24 values."""
    if values.numel() <= 2**24:
        return torch.quantile(values, 0.999)
    return torch.tensor(float(np.quantile(values.numpy(), 0.999)))
