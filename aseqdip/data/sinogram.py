"""Measured CT sinograms of a parallel beam from NumPy files."""

import math
from pathlib import Path

import numpy as np

from aseqdip.data._files import load_arrays, printable
from aseqdip.data.base import FileReader, Sample, finite
from aseqdip.errors import UserError

EXPECTED = "an .npz file with arrays 'sinogram', (detectors, views), and 'angles', (views,)"
#: what only other geometries have
OTHERS = ("source_distance", "detector_distance", "SOD", "SDD", "DSO", "DSD")


class Sinogram(FileReader):
    """``sinogram``, line integrals (after the logarithm), and ``angles`` of its views, in degrees or radians.

    Angles and detectors as ``skimage.transform.radon`` has them: the axis of rotation is detector number
    ``detectors // 2``, one detector is as wide as a pixel.
    """

    name = "sinogram"
    title = "CT sinograms (NumPy)"
    suffixes = (".npz",)
    gives = "sinogram"

    def read(self, path: Path) -> Sample:
        arrays = load_arrays(path, ["sinogram", "angles", "geometry", *OTHERS], EXPECTED, self.options.max_gib)
        geometry = str(arrays.get("geometry", "parallel"))
        if "parallel" not in geometry.lower() or (said := [name for name in OTHERS if name in arrays]):
            what = f"geometry '{printable(geometry)}'" if "parallel" not in geometry.lower() else f"a '{said[0]}'"
            raise UserError(f"{printable(path)} has {what}: only a parallel beam is reconstructed; rebin it first.")
        sinogram, angles = arrays["sinogram"], np.atleast_1d(arrays.get("angles", np.zeros(0)))
        if (
            sinogram.ndim != 2
            or angles.ndim != 1
            or len(angles) not in sinogram.shape
            or {sinogram.dtype.kind, angles.dtype.kind} - set("iuf")
        ):
            raise UserError(
                f"{printable(path)}: 'sinogram' has shape {sinogram.shape} and type {sinogram.dtype}, 'angles' "
                f"{angles.shape if 'angles' in arrays else 'is missing'}; expected {EXPECTED}, real numbers."
            )
        sample = self.sample(path)
        if len(angles) != sinogram.shape[1]:
            sinogram = sinogram.T
            sample.notes.append("'sinogram' has its views in the first axis")
        elif sinogram.shape[0] == sinogram.shape[1]:
            sample.notes.append("'sinogram' is square: taken as (detectors, views)")
        radians = float(np.abs(angles).max()) <= 2 * math.pi + 1e-3
        if radians:
            sample.notes.append("no angle is above 2 pi: taken as radians")
        elif (gap := _gap(angles)) > max(15.0, 4 * 180 / len(angles)):
            sample.notes.append(
                f"the angles are taken as degrees, from {angles.min():.4g} to {angles.max():.4g}, and leave a gap of "
                f"{gap:.0f} of 180: if they are radians, store them as degrees"
            )
        sample.sinogram = finite(sinogram.astype(np.float32), f"{printable(path)}: sinogram")
        sample.angles = finite(
            angles.astype(np.float64) * (1.0 if radians else math.pi / 180), f"{printable(path)}: angles"
        )
        if _counts(sinogram):
            sample.notes.append(
                "'sinogram' is brightest at the outermost detectors, as counts of photons are; expected line "
                "integrals: -log(counts / counts without an object)"
            )
        sample.origin.unit = "the sinogram's unit per detector width"
        return sample


def _gap(angles: np.ndarray) -> float:
    """The largest angle in degrees between neighbouring views, of the half circle."""
    at = np.sort(angles.astype(np.float64) % 180)
    return float(np.diff(at, append=at[0] + 180).max())


def _counts(sinogram: np.ndarray) -> bool:
    """Whether (detectors, views) looks like counts: as bright as anywhere outside, where a line integral is small."""
    profile = np.median(sinogram, axis=1)
    outside, inside = float(profile[[0, -1]].min()), profile[len(profile) // 4 : -(len(profile) // 4) or None]
    return outside > 0.8 * float(np.quantile(sinogram, 0.99)) > 0 and outside > 1.05 * float(inside.min())
