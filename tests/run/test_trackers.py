"""Trackers: what W&B holds is what the files hold, and W&B can never fail or hang a run."""

import json
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aseqdip.trackers import Estimate, WandB, group_of, make_trackers, tags_of

from aseqdip import trackers
from aseqdip.config import Config
from aseqdip.records import COLUMNS, read_curve
from aseqdip.runner import run

Configure = Callable[..., Config]


def offline_records(path: Path) -> Iterator[Any]:
    """The protobuf records of a ``.wandb`` file: LevelDB's log format, 32 kB blocks, after a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(folder: Path) -> dict[str, dict[int, float]]:
    """Metric -> step -> value, and the run itself under "run"."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for record in offline_records(path):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                key = item.key or ".".join(item.nested_key)
                if key in ("psnr", "ssim", "loss", "data", "autoencoding", "psnr_ema"):
                    values[key][int(record.history.step.num)] = json.loads(item.value_json)
    return values


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("parallel", [1, 2])
def test_offline_file_holds_every_iteration(configure: Configure, parallel: int) -> None:
    summary = run(configure("tracker=wandb", "steps=30", "images=0:2", f"parallel={parallel}"))
    assert len(summary.records) == 2
    for record in summary.records:
        folder = summary.folder / record["image"]
        curve, stored = read_curve(folder / "curve.csv"), history(folder)
        for name in ("loss", "psnr", "ssim", "psnr_ema", "autoencoding"):
            assert sorted(stored[name]) == list(range(1, 31)), name
            assert np.allclose([stored[name][i] for i in range(1, 31)], curve[name], rtol=1e-6)
        assert list(folder.glob("wandb/offline-run-*/files/media/images/preview*.png"))


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_images_and_seeds_share_a_group_and_nothing_else_does(configure: Configure) -> None:
    def groups(*words: str) -> set[str]:
        found = set()
        for path in sorted(run(configure("tracker=wandb", "steps=2", *words)).folder.rglob("*.wandb")):
            stored = next(r.run for r in offline_records(path) if r.WhichOneof("record_type") == "run")
            assert {"mri", "accel4", "brain", "smoke"} <= set(stored.tags)
            assert (stored.project, stored.job_type) == ("aseqdip", "smoke")
            found.add(stored.run_group)
        return found

    (group,) = groups("images=0:2", "seeds=[0,1]")
    assert group.startswith("mri/accel4/aseqdip matched smoke ")
    cfg = configure("steps=2")
    others = [
        configure("steps=2", word) for word in ("lam=2", "noise=0.1", "method=es_dip", "size=32", "recipe=original")
    ]
    assert len({group, group_of(cfg), *map(group_of, others)}) == 1 + len(others)


def test_experiment_is_a_tag(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tags_of(configure()) == ["mri", "accel4", "aseqdip", "brain", "matched", "smoke"]
    inside = SimpleNamespace(runtime=SimpleNamespace(choices={"experiment": "fig4"}))
    monkeypatch.setattr(trackers.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(trackers.HydraConfig, "get", lambda: inside)
    assert "fig4" in tags_of(configure())


class Explodes:
    """Stands in for a W&B run whose every call raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("W&B is having a bad day")


def test_a_raising_wandb_costs_one_warning(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: WandB, *args: object) -> None:
        self.run = Explodes()

    monkeypatch.setattr(WandB, "_start", start)
    summary = run(configure("tracker=wandb"))
    assert len(summary.records) == 1
    assert caplog.text.count("bad day") == 1
    assert "tracker=none switches it off" in caplog.text


@pytest.mark.usefixtures("offline")
def test_a_hanging_wandb_is_not_waited_for(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(WandB, "patience", 0.2)
    monkeypatch.setattr(WandB, "_start", lambda self, *args: time.sleep(60))
    begin = time.monotonic()
    assert len(run(configure("tracker=wandb")).records) == 1
    assert time.monotonic() - begin < 40
    assert "no answer within" in caplog.text


def test_a_run_that_starts_too_late_takes_no_other_s_place(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, finished = [], []

    class Run:
        def __init__(self, mode: str) -> None:
            begun.append(mode)
            time.sleep(0.6 if mode == "online" else 0)
            self.mode = mode

        def finish(self) -> None:
            finished.append(self.mode)

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(WandB, "patience", 0.2)
    monkeypatch.setattr("wandb.init", lambda mode, **rest: Run(mode))
    tracker = WandB(configure(), "image", "id", tmp_path)
    time.sleep(1)
    assert begun == ["online", "offline"]
    assert tracker.run.mode == "offline"
    assert finished == ["online"]


def test_wandb_that_cannot_be_imported(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    assert len(run(configure("tracker=wandb")).records) == 1
    assert "ModuleNotFoundError" in caplog.text


def test_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not trackers._has_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert trackers._has_key()


def test_without_a_tracker_wandb_is_not_touched(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WandB, "__init__", lambda *a: pytest.fail("W&B was started"))
    assert len(run(configure("tracker=none")).records) == 1


def test_a_long_run_on_a_cpu_is_announced_once(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cfg = configure("preset=paper", "tracker=none")
    (estimate,) = (t for t in make_trackers(cfg, "brain00", "id", tmp_path, 4000, True) if type(t) is Estimate)
    for step, seconds in ((1, 100.0), (2, 101.0), (11, 110.0), (12, 111.0)):
        monkeypatch.setattr("time.perf_counter", lambda seconds=seconds: seconds)
        estimate.rows([[float(step)] + [0.0] * (len(COLUMNS) - 1)])
    said = [r.message for r in caplog.records]
    assert said == [
        "brain00: about 66 min on this CPU at the paper's budget (4000 steps); preset=quick takes a few minutes."
    ], "one second a step, measured from the first rows on"
    for other in (
        make_trackers(cfg, "a", "id", tmp_path, 4000, False),
        make_trackers(configure("tracker=none"), "a", "id", tmp_path, 4, True),
    ):
        assert Estimate not in map(type, other), "a GPU or another preset"
