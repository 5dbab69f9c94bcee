"""Configuration: everything composes, parts bring their own knobs, every mistake is named."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cases import Configure
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from aseqdip import config
from aseqdip.compose import choices, compose, parse
from aseqdip.config import GROUPS, catalogue, in_force, make_task, parts, typed
from aseqdip.errors import UserError
from aseqdip.files import config_folder
from aseqdip.identity import departures
from aseqdip.methods.base import Method
from aseqdip.parts import knob
from aseqdip.run.runner import check_combination, command
from aseqdip.words import check, narrowed, rehearse, user_folder, written
from aseqdip.words import jobs as count_jobs

PAIRS = [(g, c) for g in GROUPS if g != "cell" for c in choices(g)]
TASKS, PRESETS = choices("task"), choices("preset")


@pytest.mark.parametrize(("group", "choice"), PAIRS)
def test_every_config_composes(configure: Configure, group: str, choice: str) -> None:
    cfg = configure(f"{group}={choice}", *(["task=denoising"] if choice == "faces" else []))
    if group not in ("network", "experiment"):
        found = getattr(cfg, group)
        assert getattr(found, "name", found) == choice


def test_cells_are_task_setting_and_method(configure: Configure) -> None:
    cfg = configure("cell=inpainting-hiar0.25-tv_dip")
    assert (cfg.task.name, cfg.task.options.hiar, cfg.method.name) == ("inpainting", 0.25, "tv_dip")
    assert cfg.network.name == "skip"
    assert configure("cell=ct-views18-aseqdip", "views=9").task.options.views == 9, "the command line wins"
    for cell in (c for c in choices("cell") if c.endswith("-aseqdip")):
        task, _, rest = cell.partition("-")
        name = rest.removesuffix("-aseqdip")
        assert make_task(configure(f"cell={cell}")).setting == name, "named as the folders of results are"


@pytest.mark.parametrize(("table", "count"), [("table1", 27), ("table2", 62), ("table3", 2), ("table4", 11)])
def test_tables_have_their_cells(table: str, count: int) -> None:
    experiment = OmegaConf.load(config_folder() / "experiment" / f"{table}.yaml")
    named = [cell.strip() for cell in experiment.hydra.sweeper.params.cell.split(",")]
    assert len(named) == len(set(named)) == count
    assert set(named) <= set(choices("cell"))


def jobs(experiment: str, preset: str) -> list[list[str]]:
    """The overrides of every job of an experiment's sweep, in order, as Hydra's own sweeper splits them."""
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        words = [f"experiment={experiment}", f"preset={preset}"]
        params = hydra_compose("config", words, return_hydra_config=True).hydra.sweeper.params
    (batch,) = BasicSweeper.split_arguments([parse(f"{name}={value}") for name, value in params.items()], None)
    return [[*words, *job] for job in batch]


def test_images_come_in_rounds_over_all_cells(configure: Configure) -> None:
    sweep = jobs("table2", "quick")
    assert len(sweep) == 3 * 62
    rounds = [job[2].replace("\\", "") for job in sweep]  # Hydra escapes the colon
    assert rounds == ["images=0"] * 62 + ["images=1:5"] * 62 + ["images=5:20"] * 62
    assert configure(*sweep[70]).images == "1:5"
    assert jobs("lambda_ablation", "paper")[0][2:] == jobs("fig9", "paper")[0][2:]
    assert [job[2:] for job in jobs("nk_ablation", "quick")] == [job[2:] for job in jobs("fig10", "quick")]
    assert {word for job in jobs("table2", "smoke") for word in job if "images" in word} == {"images=0", "images=1"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "experiment", ["fig1", "fig4", "fig7", "fig8", "fig9", "fig10", "table1", "table2", "table3", "table4"]
)
def test_every_job_of_every_experiment_is_valid(configure: Configure, experiment: str, preset: str) -> None:
    distinct = {tuple(word for word in job if not word.startswith("images=")) for job in jobs(experiment, preset)}
    for words in sorted(distinct):
        others = any(w.startswith(("cell=", "method=")) and not w.endswith("aseqdip") for w in words)
        if preset == "paper" or not others:  # what another preset can spoil is steps and N together
            check_combination(configure(*words))


def test_data_says_which_images(configure: Configure, tmp_path: Path) -> None:
    words = ("data=public", "cell=mri-accel8-ref_guided_dip", f"data_root={tmp_path}")
    cfg = configure(*words)
    assert (cfg.dataset.name, cfg.task.options.noise, cfg.size) == ("public_mri", 0.03, "64"), "the preset wins"
    assert cfg.method.options.pool == f"{tmp_path}/mri/magnitude/train"
    assert configure(*words, "noise=0.1").task.options.noise == 0.1, "the command line wins"
    assert configure("data=faces", "task=deblurring", "preset=paper").size == "256"
    assert configure("task=ct").dataset.files is None
    with pytest.raises(UserError, match="data=scans has no list of images for task=ct"):
        configure("data=scans", "task=ct")
    with pytest.raises(UserError, match="dataset=folder and data=public both say"):
        check(["dataset=folder", "data=public"])


@pytest.mark.parametrize(("task", "preset"), list(itertools.product(TASKS, PRESETS)))
def test_task_picks_its_defaults_and_each_can_be_overridden(configure: Configure, task: str, preset: str) -> None:
    cfg = configure(f"task={task}", f"preset={preset}")
    expected = {"mri": ("brain", "unet"), "ct": ("body", "unet")}.get(task, ("photos", "skip"))
    assert (cfg.dataset.name, cfg.network.name) == expected
    changed = configure(f"task={task}", f"preset={preset}", "dataset=folder", "network=shallow", "network.width=5")
    assert (changed.dataset.name, changed.network.depth, changed.network.width) == ("folder", 2, 5)


def test_the_papers_values_are_the_defaults(configure: Configure) -> None:
    cfg = configure("preset=paper")
    assert (cfg.steps, cfg.method.options.N, cfg.method.options.lam, cfg.lr) == (4000, 2, 1.0, 1e-4)
    assert (cfg.residual, cfg.method.options.input_update, cfg.network.width) == ("squared", "network", 64)
    assert (cfg.task.options.accel, cfg.task.options.coils, cfg.size) == (4, 15, "320")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {}),
        (
            ("preset=quick", "lam=2"),
            {"steps": 500, "N": 500, "lr": 3e-3, "lam": 2.0, "start": "tv", "network.width": 16},
        ),
        (("accel=8", "mask=equispaced", "center_fraction=0.24"), {"mask": "equispaced", "center_fraction": 0.24}),
        (("method=direct", "coils=8"), {"coils": 8}),
        (("network.width=8", "network.depth=1"), {"network.width": 8, "network.depth": 1}),
        (("method=vanilla_dip", "network.width=8"), {}),
        (("task=inpainting", "method=direct", "mask=random", "missing=0.5"), {"missing": 0.5}),
        (("task=inpainting", "method=direct", "mask=random"), {}),
        (("task=inpainting", "method=direct", "hiar=0.25"), {}),
        (("precision=bf16", "noise=0.03"), {"precision": "bf16", "noise": 0.03}),
        (("task=denoising", "sigma=30"), {"network": "skip"}),
        (("task=denoising", "method=vanilla_dip"), {}),
        (("task=inpainting", "method=direct", "sigma=5"), {"sigma": 5.0}),
        (("task=ct", "photons=1e5"), {"photons": 1e5}),
        (("ema=0.9", "stop=wmv"), {"ema": 0.9, "stop": "wmv"}),
        (("method=es_dip",), {}),
        (("method=es_dip", "stop=none"), {"stop": "none"}),
        (("method=tv_dip",), {"rho": 0.01}),
        (("method=tv_dip", "rho=1"), {}),
        (("method=direct", "steps=3"), {}),
    ],
)
def test_departures_from_the_paper(configure: Configure, words: tuple[str, ...], expected: dict[str, Any]) -> None:
    preset = () if "preset=quick" in words else ("preset=paper",)
    assert departures(configure(*preset, "precision=fp32", *words)) == expected


def test_original_recipes_are_their_authors(configure: Configure) -> None:
    own = {
        m: configure("recipe=original", "preset=paper", f"method={m}_dip")
        for m in ("vanilla", "es", "tv", "self_guided")
    }
    hole = configure("recipe=original", "method=vanilla_dip", "task=inpainting")
    assert (own["vanilla"].network.options.skip, hole.network.options.skip) == (4, 128)
    assert (hole.network.options.upsample, hole.method.options.perturb) == ("nearest", 0.03)
    backs = [c.method.options.backtrack for c in (own["vanilla"], own["tv"], own["es"], hole)]
    assert backs == [5, 5, 0, 0]
    assert (own["vanilla"].steps, own["es"].steps, own["tv"].method.options.rho) == (4000, 5000, 1)
    for task in ("mri", "ct", "denoising"):
        quick = [configure("recipe=original", f"method={m}", f"task={task}").steps for m in ("es_dip", "vanilla_dip")]
        assert quick[0] == 1.25 * quick[1], "as at the paper's steps"
    guided = own["self_guided"]
    assert (guided.residual, guided.ema, guided.method.options.alpha) == ("norm", 0.99, 0.004)
    assert guided.method.options.alpha * (640 * 372) ** 0.5 == pytest.approx(2, rel=0.03), (
        "theirs, of an FFT of norm 488"
    )


def test_an_experiment_can_set_any_knob_and_the_command_line_wins(configure: Configure) -> None:
    cfg = configure("experiment=lambda_ablation", "preset=paper")
    assert (cfg.task.name, cfg.steps) == ("mri", 10000)
    assert configure("experiment=lambda_ablation", "preset=quick").steps == 2500
    assert configure("experiment=lambda_ablation", "preset=quick", "steps=20").steps == 20


def test_other_defaults_are_of_tasks_and_presets_there_are() -> None:
    places = {"by_task": set(TASKS), "by_preset": set(PRESETS)}
    found = [(known, who) for all_ in catalogue().values() for known in all_ for who in places]
    others = [(known, known.field.metadata[who], places[who]) for known, who in found if known.field.metadata[who]]
    assert others
    for known, values, names in others:
        assert set(values) < names, f"{known.name} of {known.owner}"
        assert [known.typed(value) for value in values.values()] == list(values.values())


def test_a_users_own_configs(configure: Configure, tmp_path: Path) -> None:
    method, preset = tmp_path / "method", tmp_path / "preset"
    method.mkdir()
    preset.mkdir()
    (method / "mine.yaml").write_text("# @package _global_\ndefaults: [es_dip]\nwindow: 7\n")
    (preset / "slow.yaml").write_text("# @package _global_\npreset: {name: slow}\nlr: 1e-5\n")
    where = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = configure(where, "method=mine", "preset=slow")
    assert (cfg.method.name, cfg.rule.options.window, cfg.lr, cfg.preset) == ("es_dip", 7, 1e-5, "slow")
    with pytest.raises(UserError, match=r"by_preset:...} says nothing for preset=slow: add slow: or default:"):
        configure(where, "experiment=fig9", "preset=slow")
    check(["--config-dir", str(tmp_path), "method=mine"])
    (method / "weak.yaml").write_text("# @package _global_\ndefaults: [tv_dip]\nrho: null\n")
    (method / "few.yaml").write_text("# @package _global_\ndefaults: [mcg]\niterations: null\n")
    assert configure(where, "method=weak", "task=ct").method.options.rho == 0.001, "null: the task's default"
    assert configure(where, "method=few", "task=mri").method.options.iterations == 4, "or the preset's"
    (method / "tv_dip.yaml").write_text("rho: 3\n")
    with pytest.raises(UserError, match=r"has the name of a method there is: .*defaults: \[tv_dip\]"):
        check(["--config-dir", str(tmp_path)])
    with pytest.raises(UserError, match="there is no such folder"):
        check(["--config-dir", str(tmp_path / "none")])
    assert user_folder(["--config-dir", "one", "size=64", "--config-dir=two"]) == "two", "as Hydra takes them"


@pytest.mark.parametrize(
    "name", ["preset/quick", "network/medium", "dataset/brain", "recipe_task/best_aseqdip_mri", "cell/ct-views30-tv"]
)
def test_a_users_config_of_a_name_there_is_would_not_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text("steps: 7\n")
    with pytest.raises(UserError, match=f"{name}.yaml has the name of a {name.split('/')[0]} there is"):
        check(["--config-dir", str(tmp_path)])


def test_a_users_network_is_not_lost_either(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "wide.yaml").write_text("name: unet\nwidth: 96\ndepth: 2\n")
    (tmp_path / "network" / "wider.yaml").write_text("defaults: [wide]\nwidth: 99\n")
    own = ["--config-dir", str(tmp_path), "size=64"]
    assert rehearse([*own, "network=wider", "preset=quick"]) == [
        "network=wider has width 16 instead of 99, by preset=quick recipe=quick; for its own: network.width=99"
    ]
    with pytest.raises(UserError, match="network=wide and recipe=original: the recipe has a network of its own, skip"):
        rehearse([*own, "network=wide", "recipe=original", "method=vanilla_dip"])


def test_a_sweep_may_have_a_users_own_configs(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text('# @package _global_\nhydra: {sweeper: {params: {lam: "1,2"}}}\n')
    assert count_jobs(["-m", "--config-dir", str(tmp_path), "experiment=own"]) == 2


def test_a_command_names_the_users_own_configs(configure: Configure, tmp_path: Path) -> None:
    cfg = configure(f"hydra.searchpath=[file://{tmp_path}]", "lam=2")
    assert command(cfg, "0")[:1] == [f"--config-dir=.../{tmp_path.name}"]


@pytest.mark.parametrize(("experiment", "cells"), [("table1", 5), ("table2", 6)])
def test_a_part_of_a_table_has_its_cells_alone(experiment: str, cells: int) -> None:
    words = ["-m", f"experiment={experiment}", "images=0", "cell=glob(ct-views30*)"]
    assert count_jobs(narrowed(words)) == cells
    assert narrowed(words[2:]) == words[2:], "without one, all there are"
    with pytest.raises(UserError, match="the experiment has none of these; it has mri-accel4-"):
        narrowed([*words[:3], "cell=glob(mri-accel9*)"])


# --- parts and their knobs ---------------------------------------------------------------------------------------


def test_no_name_means_two_things() -> None:
    kinds = {name: {known.part_kind for known in all_} for name, all_ in catalogue().items()}
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}
    assert not set(kinds) & set(GROUPS)


@pytest.fixture
def parts_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type], None]]:
    """Adds a method from outside for one test."""
    before = list(parts())

    def add(part: type) -> None:
        monkeypatch.setattr(config, "parts", lambda: [*before, ("method", part.name, part)])
        catalogue.cache_clear()

    yield add
    catalogue.cache_clear()


@pytest.mark.parametrize(
    ("knob_name", "whose"), [("accel", "task=mri"), ("steps", "that every run has"), ("window", "stop=wmv")]
)
def test_a_part_may_not_take_anothers_name(parts_with: Callable[[type], None], knob_name: str, whose: str) -> None:
    options = dataclass(type("Options", (), {"__annotations__": {knob_name: float}, knob_name: knob("mine", 1.0)}))
    parts_with(type("Theirs", (Method,), {"name": "theirs", "Options": options}))
    with pytest.raises(UserError, match=f"The knob '{knob_name}' of method=theirs has the name of one .*{whose}"):
        catalogue()


@pytest.mark.parametrize(
    ("words", "used", "unused"),
    [
        ((), ("accel", "lam", "steps", "network.width"), ("views", "rho", "window", "network.skip", "dataset.slice")),
        (("task=ct", "stop=wmv", "network=skip"), ("views", "window", "network.skip"), ("accel",)),
        (("method=direct",), ("accel", "size", "seed"), ("steps", "lr", "ema", "stop", "network.width", "lam")),
        (("dataset=kspace",), ("dataset.slice",), ("dataset.hu_low",)),
    ],
)
def test_the_knobs_in_force(
    configure: Configure, words: tuple[str, ...], used: tuple[str, ...], unused: tuple[str, ...]
) -> None:
    found = in_force(configure(*words))
    assert set(used) <= set(found)
    assert not set(unused) & set(found)


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lam=abc", "lam=abc: expected a number .*autoencoding"),
        ("lam=-1", "at least 0"),
        ("stepz=10", "no setting 'stepz'. Did you mean steps"),
        ("network.widht=3", r"Did you mean network\.width"),
        ("accel=0", "accel=0.0: expected more than 1"),
        ("steps=0", "at least 1"),
        ("steps=1.5", "expected a whole number"),
        ("lr=0", "more than 0"),
        ("hiar=0.95", "at most 0.9"),
        ("sigma=-3", "at least 0"),
        ("lam=inf", "a finite number"),
        ("residual=huber", "one of squared, norm"),
        ("task=pet", "task=pet: expected one of ct, deblurring"),
        ("method=tvdip", "Did you mean .*tv_dip"),
        ("dataset=cbsd", "expected one of aapm"),
        ("dataset.reader=dng", "dataset.reader=dng: expected one of"),
        ("stop=never", "one of none, "),
        ("experiment=null", "experiment=null: expected the name of a config"),
        ("lam=null", "lam=null: give it a value, or leave it out"),
        ("mri", "'mri' is not a setting: write name=value"),
        ("lam=[a", "cannot be read"),
        ("method.rho=1", "'method.rho' is written without its first word: rho="),
        ("method.noise=1", "weight_noise=..."),
        ("operator.coils=4", "coils=..."),
        ("operator=mri", "a task has its own operator"),
        ("task.name=ct", "by its first word alone: task="),
        ("lam=0.5,1", "is a sweep: add -m"),
        ("hydra/launcher=nope", "expected one of basic"),
        ("hydra/launcher=ray", "pip install hydra-ray-launcher"),
    ],
)
def test_wrong_words_are_refused_with_a_reason(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(["method=aseqdip", word])


def test_every_value_of_a_sweep_is_checked() -> None:
    with pytest.raises(UserError, match="lam=x: expected a number"):
        check(["-m", "lam=0.5,x"])
    with pytest.raises(UserError, match="--cfg shows the settings of one run"):
        check(["-m", "lam=0.5,1", "--cfg", "job"])


@pytest.mark.parametrize(
    "word",
    ["lam=0.5,1,2", "steps=10", "images=[0,a]", "images=0:5", "images=all", "task=mri,ct", "center_fraction=null",
     "lr=1e-3", "N=range(1,4)", "hydra.sweep.dir=x", "data_root=${oc.env:HOME}",
     "cell=glob(ct-*)", "--cfg=job"],
)  # fmt: skip
def test_good_words_pass(word: str) -> None:
    check(["-m", word] if not word.startswith("-") else [word])


@pytest.mark.parametrize(
    ("word", "ready"),
    [
        ("seeds=0,1,2", "seeds=[0,1,2]"),
        ("seeds=[3]", "seeds=[3]"),
        ("images=astronaut,coffee", "images=[astronaut,coffee]"),
        ("images=0:5", "images=0:5"),
        ("images=café", 'images="café"'),
        ("outputs=~/x", f"outputs={Path.home() / 'x'}"),
        ("~lam", "~lam"),
        ("data_root=my data (1)", 'data_root="my data (1)"'),
        ("data_root=a,b", 'data_root="a,b"'),
        ("data_root='my data'", "data_root='my data'"),
        ("data_root=${oc.env:HOME}", "data_root=${oc.env:HOME}"),
        ("dataset.folder=[x]", 'dataset.folder="[x]"'),
    ],
)
def test_words_are_taken_as_they_are_meant(configure: Configure, word: str, ready: str) -> None:
    assert written([word]) == [ready]
    assert written(["-m", "lam=0.5,1"]) == ["-m", "lam=0.5,1"]


@pytest.mark.parametrize(
    "text", ['say "hi"', "it's", "back\\slash", 'odd\\"', "end\\", "a, b=c", "[x]{y}(z)", "naïve: $5", "100%", " "]
)
def test_any_text_comes_through(text: str) -> None:
    (word,) = written([f"data_root={text}"])
    assert str(parse(word).value()) == text


def test_in_a_sweep_images_are_swept_over_and_seeds_are_not() -> None:
    assert written(["-m", "seeds=0,1", "images=0,1"]) == ["-m", "seeds=[0,1]", "images=0,1"]
    with pytest.raises(UserError, match="there is no user nobody-of-that-name"):
        written(["outputs=~nobody-of-that-name/x"])


SMOKE = ("preset=smoke",)


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        (("task=ct", "accel=8"), ["accel has no effect: it belongs to task=mri, and this is task=ct."]),
        (
            ("method=vanilla_dip", "lam=1"),
            ["lam has no effect: it belongs to method=aseqdip and method=autoencoder, and this is method=vanilla_dip."],
        ),
        (("network.skip=4",), ["network.skip has no effect: it belongs to network=skip, and this is network=unet."]),
        (("task=ct", "dataset=sinogram", "views=18"), ["views has no effect: a measured sinogram has its own."]),
        (("method=cg", "start=tv"), ["start is shown, and has no effect: it begins from 0."]),
        (("method=varnet", "start=tv"), ["start is shown, and has no effect: it takes the measurement."]),
        (("task=denoising", "method=nlm", "start=tv"),
         ["start is shown, and has no effect: it takes the measurement."]),
        (("task=inpainting", "method=biharmonic", "start=tv"),
         ["start is shown, and has no effect: it takes the measurement."]),
        (("task=deblurring", "kernel=motion", "method=wiener", "start=tv"),
         ["start is shown, and has no effect: it takes the measurement."]),
        (("task=inpainting", "mask=random", "hiar=0.3", "missing=0.5"),
         ["hiar has no effect: it belongs to mask=center, and this is mask=random."]),
        (("task=inpainting", "missing=0.5"),
         ["missing has no effect: it belongs to mask=random, and this is mask=center."]),
        (("task=deblurring", "kernel_file=README.md", "kernel_size=15"),
         ["kernel_size has no effect: it belongs to a random trajectory, and this is another kernel."]),
        (("dataset=kspace", "coils=8"), ["coils has no effect: k-space has its own."]),
        (("calibration=12", "coils=8"), ["calibration has no effect: coils are simulated."]),
        (("window=5",), ["window has no effect: it belongs to stop=wmv, and this is stop=none."]),
        (
            ("method=vanilla_dip", "start=tv", "input_noise=1"),
            [
                "input_noise has no effect: it belongs to input=normal, and this is input=noise.",
                "start is shown, and has no effect: it belongs to input=measurement, and this is input=noise.",
            ],
        ),
        (("method=vanilla_dip", "start=tv", "input=measurement"), []),
        (("method=direct", "steps=3"), ["steps has no effect: method=direct does not use it."]),
        (("method=es_dip", "window=5", "accel=8", "tracker=none"), []),
        (("-m", "task=ct,mri", "accel=8", "views=9", "lam=1,2"), []),
        (("-m", "task=ct,mri", "sigma=8"), ["sigma has no effect: it belongs to task=deblurring and task=denoising and "
                                            "task=inpainting, and this is task=ct."]),
        (("-m", "experiment=fig4", "views=18"), []),
        (("-m", "stop=none,wmv", "window=5"), []),
        (("network=shallow", "preset=quick"),
         ["network=shallow has width 16 instead of 64, by preset=quick recipe=quick; for its own: network.width=64"]),
        (("network=medium", "method=self_guided_dip", "recipe=original", "preset=paper"),
         ["network=medium has depth 5 instead of 3, by preset=paper recipe=original; for its own: network.depth=3"]),
        (("network=shallow", "preset=quick", "network.width=8"), []),
        (("-m", "experiment=table2", "task=ct", "cell=ct-views30-direct,ct-views30-aseqdip"), []),
        (("experiment=fig6", "lr=1e-3", "network.width=8", "device=cpu"), []),
        (("experiment=fig6", "task=ct", "stop=wmv", "images=0:3"),
         [f"{name} has no effect: experiment=fig6 does not use it."
          for name in ("images", "stop", "task")]),
    ],
)  # fmt: skip
def test_words_without_effect_are_said(words: tuple[str, ...], warnings: list[str]) -> None:
    assert rehearse([*SMOKE, *words]) == warnings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("steps=${nope}",), "steps: Interpolation key 'nope' not found"),
        (("steps=${steps}",), "steps: Recursive interpolation"),
        (("steps=${oc.env:PATH}",), "expected a whole number"),
        (("experiment=table2",), "This is a sweep over images and cell: add -m"),
        (("-m", "experiment=table2", "task=ct"), r"task=ct: a cell says its task itself, .*'cell=glob\(ct-\*\)'"),
        (("-m", "cell=mri-accel4-aseqdip", "method=aseqdip,tv"), r"method=aseqdip,tv: a cell says its method itself"),
        (("cell=mri-accel4-aseqdip", "method=tv"), r"method=tv: a cell says its method itself, .*'cell=glob\(\*-tv\)'"),
        (("experiment=fig9", "images=0"), "This is a sweep over lam: add -m"),
        (("method=vanilla_dip", "recipe=original", "network=shallow"), "the recipe has a network of its own, skip"),
        (("-m", "recipe=original", "method=vanilla_dip", "network=medium,skip"), "has a network of its own, skip"),
        (("images=[]",), r"images=\[\] names none"),
        (("seeds=[]",), r"seeds=\[\] names none"),
        (("size=big",), "size=big: expected a number of pixels"),
        (("parallel=0",), "expected a number of images"),
        (("method=ref_guided_dip", "input=noise"), "input=noise: expected one of reference"),
        (("+stepz=3",), "no setting 'stepz'"),
    ],
)
def test_what_no_run_can_survive_is_said_before(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rehearse([*SMOKE, *words])


def test_values_that_do_not_go_together(configure: Configure) -> None:
    with pytest.raises(UserError, match=r"steps=5 is not a multiple of N=2.*use steps=4"):
        check_combination(configure("steps=5", "N=2"))
    with pytest.raises(UserError, match="odd"):
        check_combination(configure("task=deblurring", "kernel_size=4"))


def test_one_parameter_of_an_experiment_may_be_given_without_m() -> None:
    assert rehearse([*SMOKE, "experiment=fig9", "images=0", "lam=2"]) == []
    assert rehearse([*SMOKE, "experiment=table2", "--cfg", "job"]) == []


def test_unknown_key_in_yaml_is_refused(configure: Configure) -> None:
    values = {"stepz": 3, **{head: {} for head in ("network", "dataset", "tracker")}}
    with pytest.raises(UserError, match="no setting 'stepz'. Did you mean steps"):
        typed(values)


def test_by_task_fails_for_a_task_it_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "some.yaml").write_text("# @package _global_\nlr: ${by_task:{mri:1,ct:2}}\n")
    where = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=some"]
    assert compose([*where, "task=ct"]).lr == 2
    with pytest.raises(
        UserError, match=r"by_task:...} says nothing for task=denoising: add denoising: or default: to it"
    ):
        compose([*where, "task=denoising"])


@pytest.mark.parametrize(("steps", "N"), [(300, 30), (45, 3), (7, 1)])
def test_the_quick_recipe_has_an_input_update_that_divides_any_steps(configure: Configure, steps: int, N: int) -> None:
    assert configure("task=ct", "preset=quick", f"steps={steps}").method.options.N == N
