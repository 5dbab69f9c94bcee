# %% [markdown]
# # Reconstruct my scan
#
# From a file of undersampled k-space to an image. The file is made here, small, so that this page runs anywhere in
# seconds; with a scan of your own leave that out, and write its folder for `scans`. All of it is in a new folder.

# %%
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import torch

from aseqdip.data.brain import brain
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import cartesian_mask, fft2c, ifft2c

os.chdir(tempfile.mkdtemp())
folder = Path("scans")
folder.mkdir()
random = torch.Generator().manual_seed(0)
coils = simulated_coils(4, (64, 64), random)
kspace = fft2c(coils * brain(64))
kspace += 0.01 * torch.randn(kspace.shape, generator=random, dtype=torch.complex64)
mask = cartesian_mask("equispaced", 64, accel=3, center_fraction=0.2, rng=np.random.RandomState(0))
with h5py.File(folder / "head.h5", "w") as file:  # as fastMRI's: (slices, coils, rows, columns)
    file["kspace"] = (kspace * mask)[None].numpy()
    file["mask"] = mask.numpy()

# %% [markdown]
# ## What is it, and how long will it take?
#
# `aseqdip recommend` reads the files, says what they are, and prints the one command. In a terminal that is
#
# ```
# aseqdip recommend data_root=scans
# ```


# %%
def aseqdip(*words: str) -> None:
    """The command of that name; here by Python, which prints below the cell."""
    command = [sys.executable, "-m", "aseqdip", *words]
    print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


aseqdip("recommend", "data_root=scans")

# %% [markdown]
# ## Reconstruct
#
# Its command, made smaller with the last words: a few steps of a narrow network. Leave them out for a result; or begin
# with `method=tv`, which takes seconds.

# %%
command = ["task=mri", "dataset=kspace", "data_root=scans", "images=all", "preset=quick"]
aseqdip(*command, "steps=60", "network.width=8", "tracker=none")

# %% [markdown]
# ## What came back
#
# Beside the pictures and `record.json` there is `reconstruction.h5`: (slices, rows, columns), in the scan's own units.

# %%
(path,) = Path("outputs").glob("mri/*/aseqdip-*/*/reconstruction.h5")
with h5py.File(path) as file:
    volume = file["reconstruction"]
    print(volume.shape, dict(volume.attrs))
    image = volume[0]

with h5py.File(folder / "head.h5") as file:
    measured = torch.from_numpy(file["kspace"][0])
zero_filled = ifft2c(measured).abs().square().sum(0).sqrt().numpy()
figure, axes = plt.subplots(1, 2, figsize=(6, 3.2))
for axis, picture, title in zip(axes, (zero_filled, image), ("zero-filled", "aSeqDIP, a few steps"), strict=True):
    axis.imshow(picture, cmap="gray")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# A scan that was undersampled on the scanner has no true image: nothing is scored. `stop=holdout` keeps a few of its
# measurements from the method and returns the iterate that predicts them best; `stop=discrepancy noise=0.01` stops when
# the data are fitted to within the noise, if its level is known. The page Data (`docs/data.md`) has the other
# formats.
