"""Total variation: the convex reconstruction that an untrained network has to beat."""

import torch
from torch import Tensor

from aseqdip.methods._classical import Tensors, Weighted, bare, begin_descent, descend, first_image, momentum
from aseqdip.operators.base import Operator
from aseqdip.operators.blur import CameraBlur, MotionBlur
from aseqdip.operators.ct import ParallelBeam
from aseqdip.operators.identity import Identity
from aseqdip.operators.mask import Mask
from aseqdip.operators.mri import MultiCoilMRI
from aseqdip.problem import Problem

RELAXATION = 1.8
#: dual over primal step; an image of order 1 has differences of order 0.1, and dual variables reach 1
BALANCE = 100.0
#: with a large hole the image moves far, from black
BALANCE_OF_HOLE = 30.0
INNER = 10  # iterations of the proximal map, begun where the last ended


class TV(Weighted):
    """min_x 1/2 ||A x - y||^2 + rho max|A^H y| TV(x), isotropic; channels (real and imaginary part, colours) jointly.

    Linear A: the relaxed primal-dual algorithm (Chambolle and Pock, 2011; Condat, 2013) on
    TV(x) + 1/(2w) ||A x - y||^2, both terms in the dual, one A and one A^H an iteration. In CT the dual of the data is
    preconditioned by a ramp filter, which changes the speed alone. Non-linear A: FISTA with an inner dual iteration.
    """

    name = "tv"
    title = "TV"
    paper = "Rudin, Osher, Fatemi: Nonlinear total variation based noise removal algorithms, Physica D 1992"

    rhos = {
        MultiCoilMRI: (3e-5, 1e-3), ParallelBeam: (1e-4, 1e-3), Identity: (1e-3, 0.03), Mask: (1e-3, 0.02),
        MotionBlur: (1e-5, 1e-3), CameraBlur: (1e-5, 1e-3),
    }  # fmt: skip

    def regulariser(self, x: Tensor) -> Tensor:
        return lengths(gradient(x)).sum()

    def begin(self, problem: Problem) -> Tensors:
        x = first_image(problem)
        q = x.new_zeros(2, *x.shape)  # dual of the image's differences
        if not problem.operator.linear:
            return {**begin_descent(problem), "q": q, **self.weights(problem)}
        dual = torch.zeros_like(problem.y)
        return {"x": x, "Ax": problem.operator(x), "q": q, "p": dual, "norm": norm(problem), **self.weights(problem)}

    def advance(self, problem: Problem, s: Tensors, step: int) -> tuple[Tensor, Tensors]:
        if problem.operator.linear:
            x, residual = primal_dual(problem, s)
        else:
            descend(problem, s, lambda b, w: shrink(b, w, s))
            x, residual = s["x"], s["Ax"] - problem.y
        return x, self.terms(residual, x, s["weight"])


def gradient(x: Tensor) -> Tensor:
    """Differences to the next pixel down and right, zero beyond the border: (2, batch, channels, height, width)."""
    return torch.stack((x.diff(dim=-2, append=x[..., -1:, :]), x.diff(dim=-1, append=x[..., -1:])))


def gradient_adjoint(q: Tensor) -> Tensor:
    """The adjoint of :func:`gradient`."""
    down, right = q[0, ..., :-1, :], q[1, ..., :-1]
    x = torch.zeros_like(q[0])
    x[..., :-1, :] -= down
    x[..., 1:, :] += down
    x[..., :-1] -= right
    x[..., 1:] += right
    return x


def lengths(q: Tensor) -> Tensor:
    """Euclidean length at each pixel, over both directions and all channels: (batch, 1, height, width)."""
    return q.square().sum((0, 2)).sqrt()[:, None]


def into_ball(q: Tensor) -> Tensor:
    """The nearest field of lengths at most 1."""
    return q / lengths(q).clamp_min(1)


def primal_dual(problem: Problem, s: Tensors) -> tuple[Tensor, Tensor]:
    """One iteration; returns the image and its residual."""
    A, y, x, q, p, Ax = problem.operator, problem.y, s["x"], s["q"], s["p"], s["Ax"]
    balance = BALANCE_OF_HOLE if isinstance(bare(A), Mask) else BALANCE
    new = x - (gradient_adjoint(q) + A.adjoint(p)) / balance
    ahead = 2 * new - x
    measured = A(ahead)
    q_new = into_ball(q + balance / 16 * gradient(ahead))  # ||gradient||^2 <= 8; half of the step for each term
    p_new = data_dual(A, p, measured - y, balance / (2 * s["norm"]), s["weight"])
    A_new = (measured + Ax) / 2
    for name, old, fresh in (("x", x, new), ("q", q, q_new), ("p", p, p_new), ("Ax", Ax, A_new)):
        s[name] = torch.lerp(old, fresh, RELAXATION)
    return new, A_new - y


def data_dual(A: Operator, p: Tensor, residual: Tensor, step: Tensor, weight: Tensor) -> Tensor:
    """The dual of 1/(2w) ||A x - y||^2 after a step along the residual, in the metric of :func:`ramp`."""
    if not isinstance(bare(A), ParallelBeam):
        return (p + step * residual) / (1 + step * weight)
    filtered = ramp(p)
    spectrum = torch.fft.rfft(p, dim=2) + step * filtered * torch.fft.rfft(residual, dim=2)
    return torch.fft.irfft(spectrum / (1 + step * weight * filtered), n=p.shape[2], dim=2)


def ramp(sinogram: Tensor) -> Tensor:
    """A ramp filter on the half spectrum of its detectors, never zero: (frequencies, 1)."""
    return torch.linspace(0, 1, sinogram.shape[2] // 2 + 1, device=sinogram.device).clamp_min(0.02)[:, None]


def norm(problem: Problem) -> Tensor:
    """An upper bound of ||A||^2, with the dual preconditioned."""
    A, z = problem.operator, problem.z0
    x = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    size = x.norm()
    for _ in range(20):
        y = A(x / size)
        if isinstance(bare(A), ParallelBeam):
            y = torch.fft.irfft(torch.fft.rfft(y, dim=2) * ramp(y), n=y.shape[2], dim=2)
        x = A.adjoint(y)
        size = x.norm()
    return 1.05 * size


def shrink(b: Tensor, w: Tensor, s: Tensors) -> Tensor:
    """argmin_x 1/2 ||x - b||^2 + w TV(x), nearly: accelerated steps on its dual (Beck and Teboulle, 2009)
    from s["q"].
    """
    q = ahead = s["q"]
    t = 1.0
    for _ in range(INNER):
        new = into_ball(ahead + gradient(b - w * gradient_adjoint(ahead)) / (8 * w))
        t, further = momentum(t)
        q, ahead = new, new + further * (new - q)
    s["q"] = q
    return b - w * gradient_adjoint(q)
