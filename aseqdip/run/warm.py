"""``warm=slice``: a slice of a volume begins with the weights that the one before it ended with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aseqdip import records
from aseqdip.config import Config, make_task
from aseqdip.data.base import Origin
from aseqdip.errors import UserError
from aseqdip.methods.base import NetworkState
from aseqdip.problem import fingerprint
from aseqdip.run.checkpoint import Checkpoint

FILE = "warm.pt"  # in a slice's folder until the next slice is finished


def check(cfg: Config) -> None:
    """Raise UserError for choices that do not go with a warm start."""
    if cfg.warm is None:
        if cfg.warm_steps is not None:
            raise UserError(f"warm_steps={cfg.warm_steps} is for warm=slice: give both, or steps alone.")
        return
    if not cfg.learns:
        raise UserError(
            f"warm=slice hands on the weights of a network, and method={cfg.method.name} fits none: leave it out."
        )
    if cfg.images != "all" or getattr(cfg.dataset.reader.options, "slice", None) != "all":
        raise UserError(
            "warm=slice goes through volumes from their first slice on: it needs images=all, and a data set whose "
            "files may have slices (dataset=kspace, nifti, ct ...)."
        )
    if cfg.parallel != "1":
        raise UserError(f"warm=slice: a slice waits for the one before it: leave out parallel={cfg.parallel}.")
    if cfg.warm_steps is not None:
        try:
            shared = replace(cfg.shared(), steps=cfg.warm_steps)
            cfg.method.part.check(cfg.method.options, shared, make_task(cfg).kind())
        except UserError as error:
            raise UserError(f"warm_steps={cfg.warm_steps}: {error}") from error


@dataclass
class Before:
    """The finished slice that another begins from; ``said``: its name, and a digest of what it ended with."""

    folder: Path
    said: str

    def left(self, device: torch.device) -> dict[str, Any]:
        """What it left. UserError where that is gone: the slices after it were finished once."""
        image, _, digest = self.said.rpartition(" ")
        kept = Checkpoint(self.folder / FILE, {}).load(image, device)
        if kept is None or _digest(kept) != digest:
            raise UserError(
                f"warm=slice: it begins with the weights of {image}, which are no longer there ({FILE} is kept until "
                "the next slice is finished): redo=true begins the volume anew."
            )
        return kept


def before(finished: Sequence[tuple[Path, Origin]], origin: Origin) -> Before | None:
    """The slice before this one among those that are finished; None for the first, or where that one has no result."""
    for folder, other in finished:
        if origin.volume and (other.volume, other.slice) == (origin.volume, origin.slice - 1):
            trace = records.read(folder)
            if trace is not None and trace.record is not None:
                return Before(folder, f"{trace.record.image} {trace.record.facts.get('warm_left', '')}")
    return None


def note(origin: Origin, found: Before | None) -> list[str]:
    """What a user is to know of a slice that has nothing to begin from."""
    if not origin.volume:
        return ["no slice of a volume: warm=slice changes nothing"]
    if origin.slice and found is None:
        return ["the slice before it has no result: it begins cold (warm=slice), as the first one does"]
    return []


def leave(folder: Path, image: str, state: NetworkState) -> str:
    """Write what the next slice begins with; returns its digest."""
    kept = {"network": state.network.state_dict(), "z": state.z.detach()}
    Checkpoint(folder / FILE, {}).save(image, kept)
    return _digest(kept)


def _digest(kept: dict[str, Any]) -> str:
    return fingerprint(*kept["network"].values(), kept["z"])
