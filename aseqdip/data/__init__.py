"""Data sets by name: what is in them, and how one of their images is read."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

from typing import Any as Config  # until readers are parts
from aseqdip.data import images
from aseqdip.data.sample import Items, Sample


def _phantom(cfg: Config) -> Items:
    from aseqdip.data import phantoms

    make, default = (phantoms.brain, 320) if cfg.dataset.reader == "brain" else (phantoms.body, 512)
    side = default if cfg.size == "native" else int(cfg.size)
    name = cfg.dataset.reader

    def load(index: int) -> Sample:
        return Sample(f"generated {name} phantom {index}", image=make(side, index)[None])

    return {f"{name}{index:02d}": partial(load, index) for index in range(20)}


def _kspace(cfg: Config) -> Items:
    from aseqdip.data import kspace

    return kspace.items(cfg)


READERS: dict[str, Callable[[Config], Items]] = {
    "brain": _phantom,
    "body": _phantom,
    "photos": images.photos,
    "picture": images.pictures,
    "kspace": _kspace,
    "complex": images.complex_images,
    "ct": images.ct_slices,
}


def open_dataset(cfg: Config) -> Items:
    """The images of ``cfg.dataset``, by name and in order; nothing is read yet. UserError if there is none."""
    d = cfg.dataset
    dataset = SimpleNamespace(name=d.name, reader=d.reader.name, folder=d.folder, files=d.files, **vars(d.reader.options))
    return READERS[d.reader.name](SimpleNamespace(dataset=dataset, data_root=cfg.data_root, size=cfg.size))
