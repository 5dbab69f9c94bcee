# %% [markdown]
# # Read the paper's Figure 4 off three curves
#
# A network that is fitted to noisy measurements comes near the image first and fits the noise later: its PSNR rises,
# then falls. Figure 4 of the paper shows that the autoencoding term of aSeqDIP holds the fall back: it compares aSeqDIP
# with lambda = 1, with lambda = 0 (without the term), and with Vanilla DIP, whose input stays fixed.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import aseqdip
from aseqdip.data.brain import brain
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import cartesian_mask

random = torch.Generator().manual_seed(0)
head = brain(48)
truth = torch.stack((head.real, head.imag))[None]  # (1, 2, rows, columns): real and imaginary part
mask = cartesian_mask("equispaced", 48, accel=4, center_fraction=0.08, rng=np.random.RandomState(0))
A = aseqdip.operators.MultiCoilMRI(simulated_coils(4, (48, 48), random), mask)
y = A(truth)
y = y + 0.15 * torch.randn(y.shape, generator=random, dtype=y.dtype)

# %% [markdown]
# ## Three curves
#
# The paper: means over 20 scans of 320 x 320 pixels, thousands of updates at a learning rate of 1e-4. Here: one image
# of 48 x 48, much noise, a large learning rate, so that it takes seconds. The truth is used for the curve alone.

# %%
small = {"steps": 240, "lr": 5e-3, "network_width": 8, "network_depth": 2, "truth": truth}
curves = {
    "aSeqDIP, lambda = 1": aseqdip.reconstruct(y, A, "aseqdip", lam=1.0, **small).curve,
    "aSeqDIP, lambda = 0": aseqdip.reconstruct(y, A, "aseqdip", lam=0.0, **small).curve,
    "Vanilla DIP": aseqdip.reconstruct(y, A, "vanilla_dip", **small).curve,
}

# %%
figure, axis = plt.subplots(figsize=(6, 3.2))
for title, curve in curves.items():
    smooth = np.convolve(curve["psnr"], np.ones(15) / 15, mode="valid")  # a mean over 15 iterations
    top = int(smooth.argmax())
    (line,) = axis.plot(curve["iteration"][7:-7], smooth, label=title)
    axis.axvline(top + 8, color=line.get_color(), linestyle=":")
    lost = smooth[top] - smooth[-1]
    print(f"{title:20} highest {smooth[top]:.2f} dB at iteration {top + 8}, {lost:.2f} dB lost since")
axis.set(xlabel="iteration", ylabel="PSNR in dB")
axis.legend()
plt.show()

# %% [markdown]
# ## How to read it
#
# - The dotted line is where the PSNR stops rising. To the right of it is over-fitting: the loss goes on falling.
# - Nobody sees this curve in practice: without the truth there is no PSNR. A method that falls late, and little, can be
#   stopped anywhere; one that falls early needs a rule that finds the top: `stop="holdout"`, `stop="wmv"`.
# - One small image says little; the figure's own command is
#
# ```
# python run.py -m experiment=fig4
# ```
#
# and the page on the paper's claims (`docs/claims.md`) has the curves that were measured.
