"""Reconstruction methods by name."""

from aseqdip.methods.aseqdip import ASeqDIP
from aseqdip.methods.base import Method
from aseqdip.methods.direct import Direct
from aseqdip.methods.vanilla_dip import VanillaDIP

METHODS: dict[str, type[Method]] = {"aseqdip": ASeqDIP, "vanilla_dip": VanillaDIP, "direct": Direct}
