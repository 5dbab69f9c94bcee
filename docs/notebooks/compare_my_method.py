# %% [markdown]
# # Compare my method
#
# A method of one's own against total variation, Vanilla DIP and aSeqDIP, on a built-in sample: the same measurements,
# network, steps and scores for all.

# %%
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

import aseqdip
from aseqdip.data.brain import brain
from aseqdip.methods.base import Iterate, NetworkMethod, NetworkState
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import cartesian_mask
from aseqdip.parts import knob
from aseqdip.problem import Problem

# %% [markdown]
# ## The method
#
# It says its name, its knobs, and how an iterate follows from the problem; scores, curves, averages and stopping rules
# are not its business.


# %%
class WeightDecay(NetworkMethod):
    """min_phi ||A f_phi(z) - y||^2 + shrink ||phi||^2, from the start image."""

    name = "weight_decay"
    title = "DIP, weight decay"

    @dataclass
    class Options:
        shrink: float = knob("weight of the sum of squared weights", 1e-3, low=0)

    def iterates(self, problem: Problem, state: NetworkState) -> Iterator[Iterate]:
        A, y, f, z = problem.operator, problem.y, state.network, state.z

        def objective() -> tuple[Tensor, dict[str, Tensor]]:
            x = f(z)
            data = self.distance(A(x) - y)
            size = self.options.shrink * sum(p.square().sum() for p in f.parameters())
            return x, {"loss": data + size, "data": data, "regulariser": size}

        yield from self.descend(state, objective, lambda: f(z))


# %% [markdown]
# ## The problem
#
# A generated head, four coils, every fourth column of k-space and the centre, a little noise. `y = A(x)`; any object
# with `forward` and `adjoint` can stand for `A`.

# %%
random = torch.Generator().manual_seed(0)
head = brain(48)
truth = torch.stack((head.real, head.imag))[None]  # (1, 2, rows, columns): real and imaginary part
mask = cartesian_mask("equispaced", 48, accel=4, center_fraction=0.08, rng=np.random.RandomState(0))
A = aseqdip.operators.MultiCoilMRI(simulated_coils(4, (48, 48), random), mask)
y = A(truth)
y = y + 0.02 * torch.randn(y.shape, generator=random, dtype=y.dtype)

# %% [markdown]
# ## The comparison
#
# Few steps of a small network, so that this page takes seconds: the order of the methods is not that of a real run.

# %%
small = {"steps": 100, "lr": 3e-3, "network_width": 8, "network_depth": 2}
results = {
    "TV": aseqdip.reconstruct(y, A, "tv", truth=truth),
    "Vanilla DIP": aseqdip.reconstruct(y, A, "vanilla_dip", truth=truth, **small),
    "aSeqDIP": aseqdip.reconstruct(y, A, "aseqdip", truth=truth, **small),
    "mine": aseqdip.reconstruct(y, A, WeightDecay, truth=truth, shrink=1e-3, **small),
}
start = results["aSeqDIP"].scores["start"]
print(f"{'zero-filled':12}{start.psnr_db:7.2f} dB  SSIM {start.ssim:.3f}")
for title, result in results.items():
    score, seconds = result.score, result.seconds["method"]
    print(f"{title:12}{score.psnr_db:7.2f} dB  SSIM {score.ssim:.3f}{seconds:8.1f} s")

# %%
figure, axis = plt.subplots(figsize=(6, 3.2))
for title, result in results.items():
    if title == "TV":
        axis.axhline(result.score.psnr_db, color="grey", linestyle="--", label=title)
    else:
        axis.plot(result.curve["iteration"], result.curve["psnr"], label=title)
axis.set(xlabel="iteration", ylabel="PSNR in dB")
axis.legend()
plt.show()

# %% [markdown]
# As a file of its own, `aseqdip/methods/weight_decay.py`, or in a package of yours by an entry point, the same class
# is `method=weight_decay` on the command line, works on every task, goes on after a kill, and has its column in the
# report: see the page Extending (`docs/extending.md`).
