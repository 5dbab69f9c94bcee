"""Every task with every method runs end to end, tiny, and reads no knob that its identity lacks."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from audit import audited, forgotten
from cases import Configure

from aseqdip import config, identity
from aseqdip.compose import choices
from aseqdip.config import catalogue
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.methods.aseqdip import ASeqDIP
from aseqdip.parts import knob
from aseqdip.run.runner import check_combination, run
from aseqdip.tasks import TASKS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_every_task_with_every_method(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, task: str, method: str
) -> None:
    cfg = configure(f"task={task}", f"method={method}")
    try:
        check_combination(cfg)
    except UserError:  # some methods are for some tasks: each says so in a test of its own
        assert method != "aseqdip"
        return
    if method == "bm3d":
        pytest.importorskip(
            "bm3d", reason="BM3D's licence lets nobody ship it: it is there where somebody installed it"
        )
    noted, by_parts, by_runner = audited(cfg, monkeypatch)
    summary = run(noted)
    assert not summary.failed
    (record,) = summary.records
    scores = {which: record.scores[which].psnr_db for which in ("start", "last", "best", "ema")}
    assert all(value is not None and np.isfinite(value) for value in scores.values())
    if cfg.learns:
        assert record.steps == 4
    assert forgotten(cfg, by_parts, by_runner) == set()
    assert by_runner >= {"images", "outputs"}, "something was noted at all"


def test_a_knob_left_out_of_the_identity_is_found(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = configure("size=32", "network.width=4", "coils=2")
    noted, by_parts, by_runner = audited(cfg, monkeypatch)
    run(noted)
    assert {"accel", "N", "lam", "lr", "network.depth"} <= by_parts
    whole = identity.settings
    monkeypatch.setattr(identity, "settings", lambda cfg: {k: v for k, v in whole(cfg).items() if k != "lr"})
    assert forgotten(cfg, by_parts, by_runner) == {"lr"}


def test_a_knob_wrongly_declared_harmless_is_found(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(ASeqDIP):
        @dataclass
        class Options(ASeqDIP.Options):
            lam: float = knob("weight", 1.0, result=False)

    parts = [(kind, name, Careless if name == "aseqdip" else part) for kind, name, part in config.parts()]
    monkeypatch.setattr(config, "parts", lambda: parts)
    catalogue.cache_clear()
    try:
        cfg = configure("size=32", "network.width=4", "coils=2")
        cfg = replace(cfg, method=replace(cfg.method, part=Careless, options=Careless.Options()))
        noted, by_parts, by_runner = audited(cfg, monkeypatch)
        run(noted)
        assert forgotten(cfg, by_parts, by_runner) == {"lam"}
    finally:
        catalogue.cache_clear()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", [("recipe=original", "network.width=8"), ("precision=bf16",)])
def test_every_method_by_its_own_recipe_and_in_bf16(configure: Configure, method: str, words: tuple[str, ...]) -> None:
    cfg = configure("task=denoising", f"method={method}", *words)
    try:
        check_combination(cfg)
    except UserError:
        pytest.skip(f"{method} is not for denoising")
    if method == "bm3d":
        pytest.importorskip(
            "bm3d", reason="BM3D's licence lets nobody ship it: it is there where somebody installed it"
        )
    (record,) = run(cfg).records
    assert record.recipe == cfg.recipe
    assert record.precision == cfg.precision or not cfg.learns


@pytest.mark.parametrize(
    "words",
    [("task=deblurring", "kernel=motion"), ("task=deblurring", "kernel=nonlinear"), ("mask=equispaced", "accel=8"),
     ("mask=variable_density", "accel=8"), ("task=inpainting", "mask=random"), ("task=ct", "photons=1e5"),
     *((f"task={task}", f"network={network}") for network in choices("network") for task in ("mri", "denoising"))],
)  # fmt: skip
def test_every_operator_and_network(configure: Configure, words: tuple[str, ...]) -> None:
    assert len(run(configure(*words)).records) == 1


def test_single_coil(configure: Configure) -> None:
    (record,) = run(configure("coils=1")).records
    assert record.facts["coils"] == 1
