"""Blur by camera motion, linear or seen through a camera response; and the learned blur of the paper."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from aseqdip.data.picture import read_picture
from aseqdip.errors import UserError
from aseqdip.operators.base import Operator
from aseqdip.operators.bkse import BlurNetwork, EncodedBlur
from aseqdip.operators.blur import CameraBlur, MotionBlur, trajectory_kernel
from aseqdip.parts import knob
from aseqdip.priors.files import read
from aseqdip.priors.published import converted
from aseqdip.problem import Kind
from aseqdip.tasks._pictures import PictureTask

#: a display's exponent, which its camera's response undoes
GAMMA = 2.2


class Deblurring(PictureTask):
    """y = A x, A a blur along a random trajectory, or the paper's, BKSE, where its weights have been converted."""

    name = "deblurring"
    title = "Deblurring"

    @dataclass
    class Options(PictureTask.Options):
        kernel: str = knob(
            "nonlinear, blur seen through a camera response; motion, linear; bkse, learned (docs/priors.md)",
            "nonlinear",
            choices=("motion", "nonlinear", "bkse"),
        )
        kernel_size: int = knob("side of the random blur kernel in pixels, odd", 31, low=3, high=511)
        kernel_file: str | None = knob(
            "picture of the blur kernel, square with an odd side; default: a random trajectory", None, file=True
        )

    @property
    def setting(self) -> str:
        o = self.options
        return str(o.kernel) if o.kernel_file is None else f"{o.kernel}-{Path(o.kernel_file).stem}"

    def reads(self) -> tuple[Path, ...]:
        return (converted("bkse", "kernel"),) if self.options.kernel == "bkse" else ()

    def check(self) -> None:
        o = self.options
        if o.kernel == "bkse" and (o.kernel_file is not None or self.truth == "none"):
            raise UserError("kernel=bkse draws its blur itself: leave kernel_file and truth=none out.")
        self.reads()  # raises where there are no weights
        if o.kernel_size % 2 == 0:
            raise UserError(f"kernel_size={o.kernel_size}: expected an odd number of pixels.")
        if self.size is not None and self.size <= o.kernel_size // 2 and o.kernel_file is None:
            raise UserError(
                f"kernel_size={o.kernel_size} is too large for size={self.size}: expected at most {2 * self.size - 1}."
            )
        if o.kernel_file is not None and not Path(o.kernel_file).is_file():
            raise UserError(
                f"kernel_file={o.kernel_file}: there is no such file; expected a picture of the blur kernel."
            )
        if self.truth == "none" and o.kernel_file is None:
            raise UserError(
                "truth=none takes the picture as it is for the blurred one, so the kernel that blurred it must be "
                "known: set kernel_file=... to a picture of it."
            )

    @classmethod
    def idle(cls, options: Any) -> dict[str, str]:
        drawn = options.kernel != "bkse" and options.kernel_file is None
        return {} if drawn else {"kernel_size": "it belongs to a random trajectory, and this is another kernel"}

    def kind(self) -> Kind:
        return replace(super().kind(), linear=self.options.kernel == "motion")

    def operator(self, name: str, height: int, width: int) -> Operator:
        o = self.options
        if o.kernel == "bkse":
            network = read(converted("bkse"))[1]
            assert isinstance(network, BlurNetwork)
            return EncodedBlur(network, height, width, self.rng(name, "kernel"))
        kernel = (
            trajectory_kernel(o.kernel_size, self.rng(name, "kernel"))
            if o.kernel_file is None
            else read_kernel(Path(o.kernel_file))
        )
        return MotionBlur(kernel) if o.kernel == "motion" else CameraBlur(kernel, GAMMA)


def read_kernel(path: Path) -> Tensor:
    """A blur kernel from a picture, (size, size), sum 1. UserError if it is black."""
    kernel = read_picture(path).mean(0)
    if not kernel.any():
        raise UserError(f"{path} is black everywhere: expected a picture of a blur kernel.")
    return kernel / kernel.sum()
