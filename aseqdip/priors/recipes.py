"""What priors are trained on: recipes (configs/training), the images that they name, random patches of these."""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from aseqdip.data import FileReader, make_reader
from aseqdip.errors import UserError
from aseqdip.files import config_folder
from aseqdip.problem import generator

log = logging.getLogger(__name__)

#: what a network is validated at is a number of these
UNITS = {"denoiser": "/255", "unrolled": "x", "autoencoder": ""}
#: the least factor that an image is made smaller by before a patch is cut out
LEAST_SCALE = 0.5
#: the least that the largest value of all images may be: those that are darker are on another scale
DARKEST = 0.1


@dataclass
class Source:
    """Files that images come from: those that match one of ``files`` and none of ``without``."""

    reader: str
    folder: str
    files: list[str]
    without: tuple[str, ...] = ()
    share: float = 1.0

    def has(self, name: str) -> bool:
        """Whether a file of this name belongs to it."""
        return any(fnmatch(name, p) for p in self.files) and not any(fnmatch(name, p) for p in self.without)

    def images(self, root: Path) -> dict[Path, Tensor]:
        """Real images in [0, 1], (channels, height, width), by file. Raises UserError where there are none."""
        reader = make_reader(self.reader, root, self.folder)
        assert isinstance(reader, FileReader)
        paths = [path for path in reader.paths().values() if self.has(path.name)]
        if not paths:
            raise UserError(f"No {', '.join(self.files)} in {root / self.folder}: set data_root=... (docs/data.md).")
        images = {}
        for path in paths:
            sample = reader.read(path)
            for note in sample.notes:
                log.warning("%s: %s", sample.source, note)
            if sample.image is not None:
                images[path] = sample.image.abs()
        largest = max((float(image.max()) for image in images.values()), default=0.0)
        if not DARKEST <= largest <= 1.001:
            raise UserError(
                f"{root / self.folder}: expected magnitudes up to 1; found {largest:g}: rescale the images."
            )
        return images


@dataclass
class Recipe:
    """What a prior is trained on: a file of configs/training.

    Attributes:
        channels: of the images; 2 where ``complex``: real and imaginary part, made of magnitudes and random phases.
        network: what is trained: a denoiser; unrolled, from measurements of MRI; an autoencoder.
        side: of the patches, in pixels.
    """

    channels: int
    sources: list[Source]
    validation: Source
    complex: bool = False
    licence: str = ""
    network: str = "denoiser"
    side: int = 64

    def check(self) -> None:
        """Raise ValueError for values that go with no training, or not with each other."""
        if self.network not in UNITS:
            raise ValueError(f"network: {self.network}; expected {', '.join(UNITS)}")
        if not self.sources or any(isinstance(one.files, str) for one in (*self.sources, self.validation)):
            raise ValueError("sources: expected one at least; files: expected a list")
        if not isinstance(self.complex, bool) or isinstance(self.channels, bool) or not isinstance(self.side, int):
            raise ValueError("expected complex: true or false, channels and side: whole numbers")
        if self.network == "unrolled" and not self.complex:
            raise ValueError("network: unrolled is one of complex images: complex: true")
        if self.channels not in ((2,) if self.complex else (1, 3)):
            raise ValueError(f"channels: {self.channels}; expected 2 with complex: true, and 1 or 3 without")
        if self.side < 1 or min(source.share for source in self.sources) < 0:
            raise ValueError("side and share: expected at least 1, and at least 0")
        if not sum(source.share for source in self.sources) > 0:
            raise ValueError("share: expected one above 0, at least")

    def files(self) -> list[str]:
        """Patterns of all files that are trained on, as a card says them."""
        return [f"{source.folder}/{pattern}" for source in self.sources for pattern in source.files]


def recipe(name: str) -> Recipe:
    """A recipe by name or path. Raises UserError for what is none."""
    path = Path(name) if name.endswith(".yaml") else config_folder() / "training" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (config_folder() / "training").glob("*.yaml")))
        raise UserError(f"prior={name}: expected one of {known}, or the path of a .yaml file like theirs.")
    try:
        given: Any = OmegaConf.to_container(OmegaConf.load(path))
        sources = [Source(**source) for source in given.pop("sources")]
        found = Recipe(sources=sources, validation=Source(**given.pop("validation")), **given)
        found.check()
        return found
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is no recipe of a training: {error}.") from error


class Patches:
    """Random patches: a batch is a function of the seed and its number alone, so that a resumed run has the same."""

    def __init__(self, plan: Recipe, images: Sequence[Sequence[Tensor]], batch: int, seed: int) -> None:
        self.plan, self.batch, self.seed = plan, batch, seed
        self.images = [[coloured(image, plan).half() for image in source] for source in images]
        self.shares = torch.tensor([float(source.share) for source in plan.sources])
        found = hashlib.sha256()
        for image in (image for source in self.images for image in source):
            found.update(f"{tuple(image.shape)}".encode() + image.contiguous().numpy().tobytes())
        self.content = found.hexdigest()[:16]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean patches, (batch, channels, side, side), standard normal noise, and its level sigma, (batch,)."""
        rng = generator(self.seed, "patches", step)
        clean = torch.stack([self._patch(rng) for _ in range(self.batch)])
        clean = clean * (0.6 + 0.5 * torch.rand(self.batch, 1, 1, 1, generator=rng))  # brightness, contrast
        if self.plan.complex:
            clean = with_phase(clean, rng)
        # most of it where plug-and-play methods work, some of it at all levels
        sigma = (-2.4 + 1.3 * torch.randn(self.batch, generator=rng)).clamp(math.log(0.003), 0).exp()
        return clean, torch.randn(clean.shape, generator=rng), sigma

    def _patch(self, rng: torch.Generator) -> Tensor:
        source = self.images[int(torch.multinomial(self.shares, 1, generator=rng))]
        image = source[below(len(source), rng)]
        scale = LEAST_SCALE ** float(torch.rand((), generator=rng)) if below(2, rng) else 1.0
        wanted = self.plan.side
        side = min(round(wanted / scale), *image.shape[-2:])
        top, left = (below(length - side + 1, rng) for length in image.shape[-2:])
        patch = image[:, top : top + side, left : left + side].float()
        if side != wanted:
            patch = F.interpolate(patch[None], wanted, mode="bilinear", antialias=True)[0]
        patch = patch.rot90(below(4, rng), (1, 2))
        return patch.flip(2) if below(2, rng) else patch


def below(n: int, rng: torch.Generator) -> int:
    """A random whole number from 0 to n - 1."""
    return int(torch.randint(n, (), generator=rng))


def coloured(image: Tensor, plan: Recipe) -> Tensor:
    """The image with the three channels that are wanted, or one: its luminance, or magnitude."""
    if plan.channels == 3:
        return image.expand(3, -1, -1)
    weights = image.new_tensor([0.299, 0.587, 0.114]) if len(image) == 3 else image.new_ones(1)
    return (weights[:, None, None] * image).sum(0, keepdim=True)


def with_phase(magnitude: Tensor, rng: torch.Generator) -> Tensor:
    """Real and imaginary part, (batch, 2, height, width), of a magnitude with a smooth random phase in each image."""
    batch, _, rows, columns = magnitude.shape
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, columns)
    a = torch.randn(6, batch, 1, 1, generator=rng)
    phase = math.pi * a[0] + 0.5 * (a[1] * y + a[2] * x) + 0.3 * (a[3] * x * y + a[4] * x**2 + a[5] * y**2)
    return torch.cat((magnitude * phase[:, None].cos(), magnitude * phase[:, None].sin()), 1)
