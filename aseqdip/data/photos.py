"""Photographs that come with scikit-image: no download."""

from functools import partial

import numpy as np

from aseqdip.data.base import Items, Reader, Sample
from aseqdip.data.picture import channels_first

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "immunohistochemistry", "camera")


class Photos(Reader):
    """Five colour photographs and one in grey."""

    name = "photos"
    title = "scikit-image's photographs"
    generated = True

    def items(self) -> Items:
        return {name: partial(_load, name) for name in PHOTOS}


def _load(name: str) -> Sample:
    import skimage.data

    return Sample(f"skimage.data.{name}", image=channels_first(getattr(skimage.data, name)() / np.float32(255)))
