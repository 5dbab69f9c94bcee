"""Convolutional networks of infinite width: their neural tangent kernel on a 1-D signal, and Theorem A.1's dynamics."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TAPS = 3  # length of every convolution


def kernels(z: Tensor, width: int, layers: int, init: str) -> tuple[Tensor, Tensor]:
    """Theta and Sigma: tangent kernel (paper, eq. 14) and covariance of the output g(z) over initial weights.

    g has ``layers`` convolutions of three taps with zero padding and biases, one channel in and out, ``width`` between,
    ReLU between them. Layer by layer, band(M)[i, j] = sum over taps k of M[i + k, j + k]::

        Theta <- c band(A) + 1 + v c band(Theta * D),   Sigma <- v c band(A) + u

    for c channels going in, weights of variance v, biases of variance u, A = E relu(a) relu(a') and
    D = E relu'(a) relu'(a') with (a, a') ~ N(0, Sigma) of the layer before (arc-cosine kernels; Cho and Saul 2009,
    Arora et al. 2019). Weights are not rescaled by the width, as in the paper and in PyTorch: Theta grows with it, so
    the width is that of the network.

    Args:
        z: the network's input, shape (n,).
        width: channels between the layers.
        layers: number of convolutions.
        init: initial weights, one of ``network.init``.
    """
    a = torch.outer(z, z)
    d = theta = torch.zeros_like(a)
    for layer in range(layers):
        channels = width if layer else 1
        v, u = variances(init, TAPS * channels)
        theta = channels * _band(a) + 1 + v * channels * _band(theta * d)
        sigma = v * channels * _band(a) + u
        a, d = _relu_moments(sigma)
    return theta, sigma


def variances(init: str, fan_in: int) -> tuple[float, float]:
    """Of the initial weights and biases of a layer, as ``networks.blocks.initialise`` draws them."""
    return {"he": (2 / fan_in, 0.0), "default": (1 / (3 * fan_in),) * 2, "normal": (0.02**2, 0.0)}[init]


def _band(m: Tensor) -> Tensor:
    n = len(m)
    padded = F.pad(m, (TAPS // 2,) * 4)
    return sum((padded[k : k + n, k : k + n] for k in range(TAPS)), torch.zeros_like(m))


def _relu_moments(sigma: Tensor) -> tuple[Tensor, Tensor]:
    # the root of the product, not the product of roots: the cosine of equal values is then 1 to the last digit
    scale = torch.outer(sigma.diagonal(), sigma.diagonal()).sqrt().clamp_min(1e-300)
    cosine = (sigma / scale).clamp(-1, 1)
    away = math.pi - cosine.acos()
    return scale * ((1 - cosine**2).sqrt() + away * cosine) / (2 * math.pi), away / (2 * math.pi)


class Dynamics:
    """Gradient descent on f = z + g in the limit, f^(t) = y - (I - rate Theta)^t (y - f^(0)) (paper, eqs. 12-16).

    Over initial weights, f^(0) ~ N(z, Sigma): Theorem A.1 is the mean of f^(t), ``spread`` its variance.

    Args:
        z, y: input and measurement, shape (n,).
        theta, sigma: ``kernels`` of z, shape (n, n).
        rate: what multiplies Theta: the learning rate times the loss's second derivative, beta for half the sum of
            squares, 2 beta / n for their mean.
    """

    def __init__(self, z: Tensor, y: Tensor, theta: Tensor, sigma: Tensor, rate: float) -> None:
        eigenvalues, self.basis = torch.linalg.eigh(theta)
        rounding = len(z) * torch.finfo(eigenvalues.dtype).eps * eigenvalues[-1]
        self.factor = 1 - rate * torch.where(eigenvalues > rounding, eigenvalues, 0)
        self.y = y
        self.start = self.basis.T @ (y - z)
        self.variances = (self.basis.T @ sigma @ self.basis).diagonal()

    def outputs(self, steps: Tensor) -> Tensor:
        """Expected outputs after each number of steps (float64, whole), shape (len(steps), n). Theorem A.1, eq. 13."""
        return self.y - (self.factor ** steps[:, None] * self.start) @ self.basis.T

    def spread(self, steps: Tensor) -> Tensor:
        """Mean over the signal of the outputs' variance over initial weights, shape (len(steps),)."""
        return (self.factor ** (2 * steps[:, None]) * self.variances).mean(1)

    def fit(self, energy: float, most: int = 10**12) -> int | None:
        """First step with ||f^(t) - y||^2 < energy for the expected output; None if that is past ``most`` steps."""

        def reached(step: int) -> bool:
            return float((self.factor ** (2.0 * step) * self.start**2).sum()) < energy

        low, high = -1, most
        if not reached(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high
