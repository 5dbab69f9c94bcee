"""The first value of the loss below zero (Jo et al., ICCV 2021)."""

from aseqdip.stopping.base import Crossing


class Zero(Crossing):
    """The last iterate before a loss that estimates the error first falls below zero."""

    name = "zero"
    title = "loss below zero"
    paper = "Jo, Chun, Choi: Rethinking deep image prior for denoising, ICCV 2021"
    needs = ("error", "waits for a loss below zero")
