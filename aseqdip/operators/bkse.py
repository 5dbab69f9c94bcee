"""The learned blur of BKSE (Tran et al., Explore image deblurring via encoded blur kernel space, CVPR 2021)."""

import torch
from torch import Tensor, nn

from aseqdip.errors import UserError
from aseqdip.operators.base import Operator

#: what the sides of an image must be multiples of: it is halved seven times
MULTIPLE = 128
#: of a random latent, as released with DPS (Chung et al., 2023, eq. 56-59)
SCALE = 1.2


class BlurNetwork(nn.Module):
    """x, (batch, 3, height, width) in [0, 1], and k, (1, latent, height / 128, width / 128), to the blurred image.

    The keys are those of the published weights, without the part that finds k for a pair of images.
    """

    def __init__(self, width: int = 64, front: int = 10, back: int = 20, latent: int = 512) -> None:
        super().__init__()
        self.latent, w = latent, width
        self.feature_extractor = nn.Sequential(
            _conv(3, w), nn.LeakyReLU(0.1), _conv(w, w, 2), nn.LeakyReLU(0.1), _conv(w, w, 2), nn.LeakyReLU(0.1),
            *(_Residual(w) for _ in range(front)),
        )  # fmt: skip
        self.adapter = _Adapter(w, latent)
        self.recon_trunk = nn.Sequential(
            *(_Residual(w) for _ in range(back)), _conv(w, 4 * w), nn.PixelShuffle(2), nn.LeakyReLU(0.1),
            _conv(w, 4 * w), nn.PixelShuffle(2), nn.LeakyReLU(0.1), _conv(w, w), nn.LeakyReLU(0.1), _conv(w, 3),
        )  # fmt: skip

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        adapted = self.adapter.model(self.feature_extractor(x), k.expand(len(x), -1, -1, -1))
        blurred: Tensor = x + self.recon_trunk(adapted)
        return blurred


class _Adapter(nn.Module):
    """Features and k to features: a U-Net, into whose deepest level k goes."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        level = _Level(8 * width, 8 * width, None, latent)
        for channels, inner in ((4 * width, 8 * width), (2 * width, 4 * width), (width, 2 * width)):
            level = _Level(channels, inner, level)
        self.model = _Level(width, width, level, outermost=True)


class _Level(nn.Module):
    """Halves, goes deeper, doubles; what it was given comes behind what it gives, but for the outermost."""

    def __init__(
        self, channels: int, inner: int, submodule: nn.Module | None, latent: int = 0, outermost: bool = False
    ) -> None:
        super().__init__()
        down = nn.Conv2d(channels, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(inner + (latent or inner), channels, 4, 2, 1, bias=outermost)
        self.down = nn.Sequential(down) if outermost else nn.Sequential(nn.LeakyReLU(0.2), down)
        self.up = nn.Sequential(nn.ReLU(), up, *([nn.Tanh()] if outermost else []))
        self.submodule, self.outermost = submodule, outermost

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        h = self.down(x)
        h = self.up(torch.cat((h, k), 1) if self.submodule is None else self.submodule(h, k))
        return h if self.outermost else torch.cat((h, x), 1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv2(self.conv1(x).relu())
        return result


def _conv(channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, stride, 1)


class EncodedBlur(Operator):
    """y = G(x, k), kept in [0, 1], with k drawn once: the same blur in every call.

    Args:
        network: G, whose weights do not change.
        height, width: of the images. Raises UserError unless they are multiples of 128.
        generator: CPU generator of k.
    """

    linear = False
    latent: Tensor

    def __init__(self, network: BlurNetwork, height: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        if height % MULTIPLE or width % MULTIPLE:
            raise UserError(
                f"kernel=bkse takes images whose sides are multiples of {MULTIPLE} pixels; found {height} x {width}: "
                "set size=256, say."
            )
        self.network = network
        shape = (1, network.latent, height // MULTIPLE, width // MULTIPLE)
        self.register_buffer("latent", SCALE * torch.randn(shape, generator=generator))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1] != 3:
            raise UserError(f"kernel=bkse blurs pictures in colour; found {image.shape[1]} channel(s).")
        y: Tensor = self.network(image, self.latent).clamp(0, 1)
        return y

    def adjoint(self, measurements: Tensor) -> Tensor:
        raise UserError("The learned blur (kernel=bkse) is not linear: it has no adjoint.")

    def direct(self, measurements: Tensor) -> Tensor:
        return measurements
