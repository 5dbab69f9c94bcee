"""Reconstruction methods by name."""

from aseqdip.methods.aseqdip import ASeqDIP
from aseqdip.methods.base import Method
from aseqdip.methods.direct import Direct
from aseqdip.methods.rethinking_dip import RethinkingDIP
from aseqdip.methods.self_guided_dip import SelfGuidedDIP
from aseqdip.methods.sgld_dip import SGLDDIP
from aseqdip.methods.tv_dip import TVDIP
from aseqdip.methods.vanilla_dip import VanillaDIP

METHODS: dict[str, type[Method]] = {
    "aseqdip": ASeqDIP,
    "vanilla_dip": VanillaDIP,
    "tv_dip": TVDIP,
    "es_dip": VanillaDIP,  # the method is its stopping rule: configs/method/es_dip.yaml
    "ref_guided_dip": VanillaDIP,  # the method is its input: configs/method/ref_guided_dip.yaml
    "sgld_dip": SGLDDIP,
    "rethinking_dip": RethinkingDIP,
    "self_guided_dip": SelfGuidedDIP,
    "direct": Direct,
}
