"""Priors that their authors publish and nobody may bundle: what each is, and how its file becomes one of ours."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from aseqdip.errors import UserError, in_short
from aseqdip.priors.files import FAMILIES, Card, write
from aseqdip.priors.schedules import Translated


def usual_place(name: str) -> Path:
    """Where ``prior=ffhq`` looks, and where a converted file goes unless another place is named."""
    return Path("weights", f"{name}.safetensors")


@dataclass(frozen=True)
class Published:
    """A published prior.

    Attributes:
        file: its name as published; ``where`` and ``terms``: of its publication.
        card: what a converted file says of it; what no weight tells (width of heads, range, size) is known from here.
        instead: the shipped prior that would do; "" where it is no prior.
        unused: how the keys begin of a part that is not needed.
    """

    file: str
    where: str
    card: Card
    instead: str
    terms: str = "no licence is known here: those of its authors' page"
    unused: str = ""


def _unet(width: int, blocks: int, attention: list[int]) -> dict[str, Any]:
    return {
        "channels": 3, "out_channels": 6, "width": width, "multipliers": [1, 1, 2, 2, 4, 4], "blocks": blocks,
        "attention": attention, "head_width": 64,
    }  # fmt: skip


_VARNET: dict[str, Any] = {"num_cascades": 12, "pools": 4, "chans": 18, "sens_pools": 4, "sens_chans": 8}


def _varnet(part: str) -> Published:
    """A variational network of the leaderboard, which was trained on the validation set, too."""
    file, data = f"{part}_leaderboard_state_dict.pt", [f"fastMRI {part}, training and validation sets"]
    where = f"https://dl.fbaipublicfiles.com/fastMRI/trained_models/varnet/{file}"
    return Published(file, where, Card("varnet", _VARNET, 2, -1, 1, True, data=data), "unrolled")


_EDM: dict[str, Any] = {
    "channels": 2, "size": 320, "width": 128, "multipliers": [1, 1, 1, 2, 2], "blocks": 1, "attention": [],
}  # fmt: skip


def _inversebench(part: str) -> Published:
    """A prior of complex images, each divided by the 0.99 quantile of its magnitudes.

    Ours are divided by the 0.999 quantile of the zero-filled image's, and on the 20 images of ``data=public`` that is,
    in the median, 1.09 times as much at 4x and 1.00 times at 8x: they go in as they are. Trained with ln sigma of mean
    -1.2 and standard deviation 1.2; its authors sample from 152, where their VP schedule ends.
    """
    where = "https://github.com/devzhk/InverseBench/releases/tag/diffusion-prior"
    card = Card("edm", _EDM, 2, -1, 1, True, (0.01, 152.0), size=320, data=[f"fastMRI {part}, multi-coil"])
    return Published(f"mri-{part}.pt", where, card, "mr", "MIT, as the code of github.com/devzhk/InverseBench")


_NCSNPP: dict[str, Any] = {"channels": 1, "width": 128, "multipliers": [1, 2, 2, 2], "blocks": 4}

PUBLISHED = {
    "ffhq": Published(
        "ffhq_10m.pt", "the folder that the README of github.com/DPS2022/diffusion-posterior-sampling links",
        Card("adm", _unet(128, 1, [4]), 3, -1, 1, sigmas=(0.01, 157.4), size=256, data=["FFHQ"]), "natural",
    ),
    "imagenet": Published(
        "256x256_diffusion_uncond.pt",
        "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        Card("adm", _unet(256, 2, [3, 4, 5]), 3, -1, 1, sigmas=(0.01, 157.4), size=256, data=["ImageNet"]), "natural",
        "MIT, as the code of github.com/openai/guided-diffusion",
    ),
    # as released, real and imaginary part go into a network trained on magnitudes as they are, without a shift
    "score_mri_knee": Published(
        "checkpoint_95.pth", "the link in install.sh of github.com/HJ-harry/score-MRI",
        Card("ncsnpp", _NCSNPP, 1, -1, 1, True, (0.01, 378.0), size=320, data=["fastMRI knee, magnitudes"]), "mr",
    ),
    "mcg_aapm": Published(
        "checkpoint_185.pth", "the link in the README of github.com/HJ-harry/MCG_diffusion",
        Card("ncsnpp", _NCSNPP, 1, 0, 1, sigmas=(0.01, 378.0), size=256, data=["AAPM CT"]), "ct",
    ),
    "inversebench_knee": _inversebench("knee"),
    "inversebench_brain": _inversebench("brain"),
    "varnet_knee": _varnet("knee"),
    "varnet_brain": _varnet("brain"),
    "bkse": Published(
        "GOPRO_wVAE.pth", "the link GOPRO wVAE in the README of github.com/VinAIResearch/blur-kernel-space-exploring",
        Card("bkse", {}, 3, data=["GoPro"]), "", unused="kernel_extractor.",
    ),
}  # fmt: skip

#: a key by which weights of one structure are known
SIGNS = {"varnet": "cascades.0.dc_weight", "bkse": "recon_trunk.28.weight"}


def converted(name: str, word: str = "prior") -> Path:
    """The converted file of a published prior. Raises UserError with what to do where there is none.

    Args:
        word: how a user chose it.
    """
    path, it = usual_place(name), PUBLISHED[name]
    if not path.is_file():
        raise UserError(
            f"{word}={name}: expected {path}, which is not there. Nothing is downloaded: get {it.file} from {it.where} "
            f"(terms: {it.terms}), then python -m aseqdip.weights convert {it.file} --as {name}. "
            + (f"Without it: prior={it.instead}, which comes with this package." if it.instead else "")
        )
    return path


def convert(path: Path, name: str | None, out: Path | None) -> Path:
    """Write a published file as one of ours, whose path is returned.

    Args:
        name: which one it is, a key of ``PUBLISHED``; default: by the name of the file, or its structure.
        out: where to; default: ``weights/NAME.safetensors``.

    Raises UserError for a file that is not that one, with what is missing and what is too much, or by its name another.
    """
    if name is not None and name not in PUBLISHED:
        raise UserError(f"--as {name}: expected one of {', '.join(PUBLISHED)}.")
    named = [known for known, it in PUBLISHED.items() if it.file == path.name]
    if name is not None and named and name not in named:  # several have the same structure
        raise UserError(f"--as {name}: {path.name} is the file of {named[0]}; rename it if it is not.")
    weights = tensors(path)
    if name is None:
        names = named or alike(weights)
        if len(names) != 1:
            raise UserError(f"{path}: say which prior it is: --as {' or '.join(names or PUBLISHED)}.")
        name = names[0]
    it, weights = PUBLISHED[name], checked(path, name, weights)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {"name": name, "licence": it.terms, "source": f"{path.name}, sha256 {digest}"}
    out = out or usual_place(name)
    write(out, Card(**{**asdict(it.card), **facts}), weights, torch.float32)
    return out


def tensors(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of PyTorch, in its order; the averaged ones where it has a list of them.

    Nothing but tensors and plain values is ever read from it. Raises UserError for what is no such file.
    """
    expected = f"{path}: expected a checkpoint of PyTorch with tensors alone"
    try:
        with path.open("rb") as file:
            begins = file.read(64).lstrip().lower()
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # torch raises many kinds
        pickled = begins.startswith((b"\x80", b"pk"))  # bare, or in torch's zip
        if pickled and isinstance(error, UnpicklingError):
            raise UserError(
                f"{expected}; found objects, such as a pickled module, and to read them is to run whatever code the "
                "file names. Get the one that holds weights (its state_dict), or have its authors write it."
            ) from error
        page = begins.startswith((b"<!doctype", b"<html", b"<?xml"))
        found = "a web page, as refused downloads are" if page else in_short(error)
        raise UserError(f"{expected}; found {found} ({path.stat().st_size} bytes). Get it anew.") from error
    state, ema = content, None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        state, ema = content["model"], content.get("ema")
    elif isinstance(content, dict) and isinstance(averaged := content.get("ema", content.get("net")), dict):
        state = averaged  # EDM's: whole averages, by key
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        inside = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{expected}; found {inside or 'an empty one'}. Get it anew.")
    weights = {key.removeprefix("module."): value for key, value in state.items()}
    weights.pop("sigmas", None)  # of NCSN++: noise levels, which the card has
    if ema is not None:
        # averages of what was trained, in the network's order; the frequencies of its embedding were not
        trained = [key for key in weights if key != "all_modules.0.W"]
        averages = ema.get("shadow_params", []) if isinstance(ema, dict) else []
        if [tuple(a.shape) for a in averages] != [tuple(weights[key].shape) for key in trained]:
            raise UserError(
                f"{path}: expected averages (ema) of its {len(trained)} trained tensors; found {len(averages)}, or of "
                "other shapes. Get it anew."
            )
        weights.update(zip(trained, averages, strict=True))
    return weights


def checked(path: Path, name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, if they are that prior's. Raises UserError that names what is missing and what is too much."""
    card, unused = PUBLISHED[name].card, PUBLISHED[name].unused
    weights = {key: value for key, value in weights.items() if not unused or not key.startswith(unused)}
    with torch.device("meta"):
        network = FAMILIES[card.family](**card.arguments)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    kinds = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [key for key in expected if key in found and found[key] != expected[key]],
    }
    wrong = [f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in kinds.items() if keys]
    if wrong:
        other = f"It has the structure of {' and '.join(names)}. " if (names := alike(weights)) else ""
        raise UserError(
            f"{path}: expected the {len(expected)} tensors of {name}; found {'; '.join(wrong)}. {other}Get it anew, or "
            f"say --as what it is: {', '.join(PUBLISHED)}."
        )
    return weights


def alike(weights: Mapping[str, Tensor]) -> list[str]:
    """The published priors whose structure the weights' shapes have."""
    found = []
    for name, it in PUBLISHED.items():
        family = FAMILIES[it.card.family]
        if not (isinstance(family, type) and issubclass(family, Translated)):
            found += [name] * (SIGNS[it.card.family] in weights)
            continue
        try:
            structure = family.arguments(weights)
        except (KeyError, IndexError, ValueError):  # another family's keys, or the same with other shapes
            continue
        if structure.items() <= it.card.arguments.items():
            found.append(name)
    return found
