"""Priors in files: safetensors alone, with a card in the metadata that says how to build it and what it is good for."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError
from aseqdip.files import write_atomically
from aseqdip.operators.bkse import BlurNetwork
from aseqdip.priors.adm import ADM
from aseqdip.priors.denoiser import Denoiser
from aseqdip.priors.edm import EDM
from aseqdip.priors.ncsnpp import NCSNpp
from aseqdip.priors.trained import Autoencoder, Unrolled


def e2e_varnet(**arguments: Any) -> torch.nn.Module:
    """The E2E-VarNet of the package fastmri. Raises UserError where that is not installed."""
    try:
        from fastmri.models import VarNet
    except ImportError as error:
        raise UserError(
            "E2E-VarNet is the network of the package fastmri, which is not there: pip install 'aseqdip[fastmri]', or "
            "use prior=unrolled, which comes with this package."
        ) from error
    network: torch.nn.Module = VarNet(**arguments)
    return network


#: networks by the name that a card gives: those that denoise, and others
DENOISERS: dict[str, type[torch.nn.Module]] = {"denoiser": Denoiser, "adm": ADM, "ncsnpp": NCSNpp, "edm": EDM}
FAMILIES: dict[str, Callable[..., torch.nn.Module]] = {
    **DENOISERS, "unrolled": Unrolled, "varnet": e2e_varnet, "autoencoder": Autoencoder,
    "bkse": BlurNetwork,
}  # fmt: skip


@dataclass
class Card:
    """What a prior's file says of it.

    Attributes:
        family: its network, a key of ``FAMILIES``.
        arguments: of the network.
        channels: of the images that it takes; two are real and imaginary part where ``complex``.
        low, high: the range of its images; ``sigma`` is in the same unit.
        sigmas: the least and the largest standard deviation that it was trained on.
        data: patterns of the files that it was trained on; ``begun_from``: the prior that its training began with.
        size: side of the images that it was trained on; 0: patches, so that any will do.
        source: the file that it was converted from.
        psnr: in dB on validation images, by sigma as "25/255 of the range".
    """

    family: str
    arguments: dict[str, Any]
    channels: int
    low: float = 0.0
    high: float = 1.0
    complex: bool = False
    sigmas: tuple[float, float] = (0.003, 1.0)
    name: str = ""
    data: list[str] = field(default_factory=list)
    images: int = 0
    steps: int = 0
    hours: float = 0.0
    licence: str = ""
    begun_from: str = ""
    size: int = 0
    source: str = ""
    psnr: dict[str, float] = field(default_factory=dict)


def write(path: Path, card: Card, weights: dict[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> None:
    """The weights, rounded to ``dtype``, and the card."""
    from safetensors.torch import save

    rounded = {name: value.to("cpu", dtype).contiguous() for name, value in weights.items()}
    content = save(rounded, {"card": json.dumps(asdict(card))})
    write_atomically(path, lambda file: file.write(content))


def read(path: Path) -> tuple[Card, torch.nn.Module]:
    """The card and the network, in fp32. Raises UserError for what is no whole file of a prior that is known here."""
    from safetensors import SafetensorError, safe_open  # machines that run no prior do without

    expected = (
        f"{path}: expected a prior as python -m aseqdip.train or aseqdip.weights writes it (safetensors with a card)"
    )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("card")
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{expected}; found what cannot be read as one ({error}). Get or write the file anew."
        ) from error
    try:
        given = json.loads(text or "null")
        card = Card(**given)
        with torch.device("meta"):  # draws no random weights
            network = FAMILIES[card.family](**card.arguments)
    except (TypeError, ValueError, KeyError) as error:
        known = ", ".join(f.name for f in fields(Card))
        raise UserError(
            f"{expected}; found no card that is understood ({type(error).__name__}: {error}). A card has {known}; "
            f"families: {', '.join(FAMILIES)}."
        ) from error
    try:
        network.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(f"{expected}; its weights are not those of its card: {error}") from error
    if bad := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise UserError(f"{expected}; {bad[0]} holds NaN or infinite numbers. Get or write the file anew.")
    return card, network.eval().requires_grad_(False)
