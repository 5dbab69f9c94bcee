"""Images from files: pictures, complex MR images, CT slices; and scikit-image's bundled photographs."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from typing import Any as Config  # until readers are parts
from aseqdip.data.sample import Items, Sample, finite, list_files, unique_names
from aseqdip.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "camera")


def photos(cfg: Config) -> Items:
    """Photographs that come with scikit-image: no download."""

    def load(name: str) -> Sample:
        import skimage.data

        return Sample(f"skimage.data.{name}", image=_channels_first(getattr(skimage.data, name)() / np.float32(255)))

    return {name: partial(load, name) for name in PHOTOS}


def pictures(cfg: Config) -> Items:
    """PNG, JPEG or TIFF files, grey or colour, as (1 or 3, height, width) in [0, 1]."""
    files = unique_names(list_files(cfg, PICTURES))
    return {name: lambda f=file: Sample(str(f), image=read_picture(f)) for name, file in files.items()}  # type: ignore[misc]


def read_picture(path: Path) -> Tensor:
    """One picture, upright, without its alpha channel; UserError if it cannot be decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode in ("I;16", "I;16B", "I"):
                array = np.asarray(picture).astype(np.float32) / 65535
            elif picture.mode == "F":
                array = np.asarray(picture)
            else:
                array = np.asarray(picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")) / np.float32(
                    255
                )
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} could not be read as a picture ({error}): expected {', '.join(PICTURES)}.") from error
    image = _channels_first(array)
    if not (torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise UserError(f"{path} holds values outside 0..1: rescale floating-point pictures to that range.")
    return image


def complex_images(cfg: Config) -> Items:
    """Fully sampled MR images, complex or magnitude: ``.npz`` with an array 'image', or ``.npy``."""
    files = unique_names(list_files(cfg, (".npz", ".npy")))
    return {name: partial(read_complex, file) for name, file in files.items()}


def read_complex(path: Path) -> Sample:
    """One MR image, complex, (1, height, width). UserError for anything else."""
    array, patient = _load_array(path, "image")
    if array.ndim != 2:
        raise UserError(f"{path}: 'image' has shape {array.shape}; expected (height, width).")
    image = finite(array.astype(np.complex64), f"{path}: image")[None]
    return Sample(str(path), image=image, patient=patient)


def ct_slices(cfg: Config) -> Items:
    """CT slices in Hounsfield units: DICOM files, or ``.npz`` with an array 'hu'; mapped by a fixed window to [0, 1]."""
    files = unique_names(list_files(cfg, (".dcm", ".npz", ".ima"), bare=_is_dicom))
    return {name: partial(read_ct, file, cfg.dataset.hu_low, cfg.dataset.hu_high) for name, file in files.items()}


def read_ct(path: Path, low: float, high: float) -> Sample:
    """One CT slice, (1, height, width): ``low`` to ``high`` Hounsfield units as 0 to 1, clipped. UserError for anything else."""
    hu, patient = _load_array(path, "hu") if path.suffix == ".npz" else read_dicom(path)
    if hu.ndim != 2:
        raise UserError(f"{path} has shape {hu.shape}; expected one slice, (height, width).")
    scaled = finite(((hu.astype(np.float32) - low) / (high - low)), str(path))
    return Sample(str(path), image=scaled.clamp(0, 1)[None], patient=patient, window=(low, high))


def _is_dicom(path: Path) -> bool:
    """Scanners and archives often write DICOM files without a suffix: their magic word tells them."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: Path) -> tuple[np.ndarray, str]:
    """Hounsfield units of one DICOM slice: stored value * RescaleSlope + RescaleIntercept; and the patient's id."""
    try:
        import pydicom
    except ImportError as error:
        raise UserError("Reading DICOM needs pydicom: pip install pydicom.") from error
    try:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array
    except Exception as error:  # pydicom raises many kinds for one cause: not a readable image
        raise UserError(f"{path} could not be read as a DICOM image ({error}).") from error
    hu = np.asarray(pixels * float(file.get("RescaleSlope", 1)) + float(file.get("RescaleIntercept", 0)))
    return hu, str(file.get("PatientID", ""))


def _load_array(path: Path, key: str) -> tuple[np.ndarray, str]:
    """The array of a NumPy file, and whose image it is where the file says so in a text 'subject'."""
    subject = ""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            if key not in loaded:
                raise UserError(f"{path} holds {', '.join(loaded.files)}; expected an array '{key}'.")
            subject = str(loaded["subject"]) if "subject" in loaded else ""
            loaded = loaded[key]
    except UserError:
        raise
    except Exception as error:  # a damaged file raises many kinds
        raise UserError(f"{path} could not be read ({error}): expected a NumPy file with an array '{key}'.") from error
    if not np.issubdtype(loaded.dtype, np.number):
        raise UserError(f"{path}: '{key}' has type {loaded.dtype}; expected numbers.")
    return np.asarray(loaded), subject


def _channels_first(array: np.ndarray) -> Tensor:
    image = torch.from_numpy(np.array(array, dtype=np.float32))
    return image[None] if image.ndim == 2 else image.movedim(-1, 0).contiguous()
