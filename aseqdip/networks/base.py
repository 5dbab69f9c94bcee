"""What an untrained network is: one image in, one image out, at any size that its scales divide."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from aseqdip.parts import Part, knob


@dataclass
class NetworkSettings:
    """Which network, and how it begins.

    Attributes:
        name: of the part.
        options: the network's own knobs, an instance of its ``Options``; None for its defaults.
    """

    name: str = knob("which network", "unet")
    width: int = knob("channels at full resolution", 64, low=1)
    depth: int = knob("number of down-samplings", 3, low=1, high=8)
    sigmoid: bool | None = knob("output through a sigmoid; default: skip and s2s, for images in [0, 1]", None)
    init: str = knob(
        "initial weights: normal is N(0, 0.02^2), he is N(0, 2/fan-in), default is PyTorch's",
        "normal",
        choices=("normal", "default", "he"),
    )
    add_input: bool = knob(
        "the output is the input plus what the network makes of it, at first nothing: for an input that is an image, "
        "start=tv or input=tv (not in the paper)",
        False,
    )
    options: Any = None


class Network(nn.Module, Part, ABC):
    """An untrained network, image (batch, channels, height, width) to image.

    Attributes:
        sigmoid: whether its output goes through a sigmoid unless the user says otherwise, for images in [0, 1].
        defaults: width and depth where none are given.
    """

    sigmoid: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}

    @classmethod
    @abstractmethod
    def build(cls, settings: NetworkSettings, in_channels: int, out_channels: int, sigmoid: bool) -> Self:
        """The network for images of so many channels; its weights are drawn afterwards. UserError if it cannot be."""

    @classmethod
    def multiple(cls, settings: NetworkSettings) -> int:
        """What the sides of an image must be a multiple of; others are padded to it by reflection."""
        return int(2**settings.depth)
