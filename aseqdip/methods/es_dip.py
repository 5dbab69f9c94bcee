"""Deep image prior with early stopping (Wang et al., TMLR 2023): Vanilla DIP and a rule that picks the iterate."""

from aseqdip.methods.vanilla_dip import VanillaDIP


class ESDIP(VanillaDIP):
    """Vanilla DIP, ended by the windowed moving variance of its outputs; the authors' window and patience."""

    name = "es_dip"
    title = "ES-DIP"
    paper = "Wang, Li, Zhuang, Chen, Liang, Sun: Early stopping for deep image prior, TMLR 2023"
    defaults = {"stop": "wmv"}
