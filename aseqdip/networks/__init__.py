"""Untrained networks by name; one image in, one image out, at any size."""

import torch
from torch import nn

from aseqdip.config import NetworkConfig
from aseqdip.errors import UserError
from aseqdip.networks.blocks import Padded, initialise
from aseqdip.networks.s2s import S2S
from aseqdip.networks.skip import Skip
from aseqdip.networks.unet import UNet

NETWORKS = ("unet", "skip", "s2s")


def make_network(
    cfg: NetworkConfig, in_channels: int, out_channels: int, signed: bool, generator: torch.Generator
) -> Padded:
    """The network a config describes, initialised from ``generator``.

    Args:
        in_channels: channels of the network's input z.
        out_channels: channels of the image (2 for MRI, 1 for CT, 1 or 3 for pictures).
        signed: whether images take negative values (complex MRI); a sigmoid output then makes no sense.
        generator: CPU generator for the initial weights.

    Raises UserError for an unknown name or a sigmoid on signed images.
    """
    sigmoid = cfg.name != "unet" and not signed if cfg.sigmoid is None else cfg.sigmoid
    if sigmoid and signed:
        raise UserError(
            "network.sigmoid=true keeps the output in (0, 1), but a complex MRI image has negative parts: "
            "use network.sigmoid=false."
        )
    network: nn.Module
    with torch.device("meta"):  # weights are drawn below, from our own generator, not from the global one
        if cfg.name == "unet":
            if in_channels != out_channels:
                raise UserError(
                    f"network=unet maps an image to itself; found {in_channels} -> {out_channels} channels: "
                    "use network=skip, or leave input_channels alone."
                )
            network = UNet(out_channels, cfg.width, cfg.depth, sigmoid)
        elif cfg.name == "skip":
            network = Skip(in_channels, out_channels, cfg.width, cfg.skip, cfg.depth, cfg.upsample, sigmoid)
        elif cfg.name == "s2s":
            network = S2S(in_channels, out_channels, cfg.width, cfg.depth, sigmoid)
        else:
            raise UserError(f"network.name={cfg.name} is unknown: use one of {', '.join(NETWORKS)}.")
    network = network.to_empty(device="cpu")
    initialise(network, cfg.init, generator)
    return Padded(network, 2**cfg.depth)
