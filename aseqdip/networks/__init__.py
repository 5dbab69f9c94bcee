"""Untrained networks by name; one image in, one image out, at any size."""

from dataclasses import replace

import torch

from aseqdip.errors import UserError
from aseqdip.networks.base import Network, NetworkSettings
from aseqdip.networks.blocks import Padded, initialise
from aseqdip.parts import Registry

NETWORKS = Registry(Network, __name__, "network", helpers=("blocks",))  # type: ignore[type-abstract]


def make_network(
    settings: NetworkSettings, in_channels: int, out_channels: int, signed: bool, generator: torch.Generator
) -> Padded:
    """The network the settings describe, initialised from ``generator``.

    Args:
        in_channels: channels of the network's input z.
        out_channels: channels of the image (2 for MRI, 1 for CT, 1 or 3 for pictures).
        signed: whether images take negative values (complex MRI); a sigmoid output then makes no sense.
        generator: CPU generator for the initial weights.

    Raises UserError for an unknown name, a sigmoid on signed images, or ``add_input`` where input and output differ.
    """
    part = NETWORKS[settings.name]
    settings = settings if settings.options is not None else replace(settings, options=part.Options())
    plain = not signed and not settings.add_input
    sigmoid = part.sigmoid and plain if settings.sigmoid is None else settings.sigmoid
    if settings.add_input and (sigmoid or in_channels != out_channels):
        raise UserError(
            f"network.add_input=true adds the output to an input of {in_channels} channels: it needs as many out "
            f"({out_channels}), and network.sigmoid=false."
        )
    if sigmoid and signed:
        raise UserError(
            "network.sigmoid=true keeps the output in (0, 1), but a complex MRI image has negative parts: "
            "use network.sigmoid=false."
        )
    with torch.device("meta"):  # weights are drawn below, from our own generator, not from the global one
        network = part.build(settings, in_channels, out_channels, sigmoid)
    # as to_empty does it, without the symbolic algebra that PyTorch imports for that
    empty = {name: torch.empty(held.shape, dtype=held.dtype) for name, held in network.state_dict().items()}
    network.load_state_dict(empty, assign=True)
    initialise(network, settings.init, generator)
    if settings.add_input:
        *_, last = (module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
        for parameter in last.parameters():
            torch.nn.init.zeros_(parameter)
    return Padded(network, part.multiple(settings), settings.add_input)


def check_size(settings: NetworkSettings, shape: tuple[int, ...], image: str) -> None:
    """Raise UserError unless images of this shape, (..., height, width), are large enough for the network.

    A multiple of its scales is reached by reflecting the borders, which needs at least as many pixels; and a single
    pixel at the coarsest scale has no variance to normalise by.
    """
    multiple, side = NETWORKS[settings.name].multiple(settings), min(shape[-2:])
    if side < multiple or max(shape[-2:]) <= multiple:
        raise UserError(
            f"{image} is {side} pixels on its short side, but network={settings.name} with depth={settings.depth} "
            f"needs at least {multiple}, and more on the other: use a larger image or a smaller network.depth."
        )
