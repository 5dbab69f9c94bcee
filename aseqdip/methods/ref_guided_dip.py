"""Deep image prior guided by a reference image (Zhao et al., Sensors 2020)."""

from dataclasses import dataclass

from aseqdip.methods.vanilla_dip import VanillaDIP
from aseqdip.parts import knob


class RefGuidedDIP(VanillaDIP):
    """Vanilla DIP whose fixed input is the most similar image of a pool, as the aSeqDIP paper has it (App. C.6)."""

    name = "ref_guided_dip"
    title = "Ref-Guided DIP"
    paper = "Zhao, Zhao, Gao: Reference-driven compressed sensing MR image reconstruction, Sensors 2020"

    @dataclass
    class Options(VanillaDIP.Options):
        input: str = knob("fixed input: the nearest image of a pool", "reference", choices=("reference",))
