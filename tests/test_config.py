"""Configuration: everything composes, every knob is documented, every mistake is named."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from aseqdip.cli import check_words, choices, expand_home, help_text, write_list
from aseqdip.config import Config, config_folder, knobs
from aseqdip.errors import UserError
from aseqdip.methods import METHODS
from aseqdip.networks import NETWORKS
from aseqdip.records import COMMON_KNOBS, FOLDERS, LISTS, TASK_KNOBS, deviations, identity, run_folder
from aseqdip.tasks import check_combination, setting

Configure = Callable[..., Config]

PAIRS = [
    (g, c)
    for g in (
        "task",
        "data",
        "dataset",
        "operator",
        "network",
        "method",
        "recipe",
        "preset",
        "tracker",
        "experiment",
    )
    for c in choices(g)
]


@pytest.mark.parametrize(("group", "choice"), PAIRS)
def test_every_config_composes(configure: Configure, group: str, choice: str) -> None:
    cfg = configure(f"{group}={choice}", *(["task=denoising"] if choice == "faces" else []))
    if group not in ("network", "experiment"):
        assert getattr(cfg, group).name == choice


def test_cells_are_task_setting_and_method(configure: Configure) -> None:
    cfg = configure("cell=inpainting-hiar0.25-tv_dip")
    assert (cfg.task.name, cfg.hiar, cfg.method.name, cfg.network.name) == (
        "inpainting",
        0.25,
        "tv_dip",
        "skip",
    )
    assert configure("cell=ct-views18-aseqdip", "views=9").views == 9, "the command line wins"
    for cell in (c for c in choices("cell") if c.endswith("-aseqdip")):
        task, name, _ = cell.split("-")
        assert setting(configure(f"cell={cell}")) == name, "named as the folders of results are"


@pytest.mark.parametrize(("table", "count"), [("table1", 27), ("table2", 53)])
def test_tables_have_their_cells(table: str, count: int) -> None:
    experiment = OmegaConf.load(config_folder() / "experiment" / f"{table}.yaml")
    named = [cell.strip() for cell in experiment.hydra.sweeper.params.cell.split(",")]
    assert len(named) == len(set(named)) == count
    assert set(named) <= set(choices("cell"))


def jobs(experiment: str, preset: str) -> list[list[str]]:
    """The overrides of every job of an experiment's sweep, in order."""
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        words = [f"experiment={experiment}", f"preset={preset}"]
        params = compose("config", words, return_hydra_config=True).hydra.sweeper.params
        parsed = OverridesParser.create().parse_overrides([f"{name}={value}" for name, value in params.items()])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return [[*words, *job] for job in batch]


def test_images_come_in_rounds_over_all_cells(configure: Configure) -> None:
    sweep = jobs("table2", "quick")
    assert len(sweep) == 3 * 53
    rounds = [job[2].replace("\\", "") for job in sweep]  # Hydra escapes the colon
    assert rounds == ["images=0"] * 53 + ["images=1:5"] * 53 + ["images=5:20"] * 53
    assert configure(*sweep[60]).images == "1:5"
    assert jobs("lambda_ablation", "paper")[0][2:] == jobs("fig9", "paper")[0][2:]
    assert [job[2:] for job in jobs("nk_ablation", "quick")] == [job[2:] for job in jobs("fig10", "quick")]
    assert {word for job in jobs("table2", "smoke") for word in job if "images" in word} == {
        "images=0",
        "images=1",
    }


@pytest.mark.slow
@pytest.mark.parametrize("preset", choices("preset"))
@pytest.mark.parametrize("experiment", ["fig1", "fig4", "fig8", "fig9", "fig10", "table1", "table2"])
def test_every_job_of_every_experiment_is_valid(configure: Configure, experiment: str, preset: str) -> None:
    distinct = {tuple(word for word in job if not word.startswith("images=")) for job in jobs(experiment, preset)}
    for words in sorted(distinct):
        others = any(w.startswith(("cell=", "method=")) and not w.endswith("aseqdip") for w in words)
        if preset == "paper" or not others:  # what another preset can spoil is steps and N together
            check_combination(configure(*words))


def test_data_says_which_images(configure: Configure, tmp_path: Path) -> None:
    cfg = configure("data=public", "cell=mri-accel8-aseqdip", f"data_root={tmp_path}")
    assert (cfg.dataset.name, cfg.noise, cfg.size) == ("public_mri", 0.03, "64"), "the preset wins over the list"
    assert cfg.pool == f"{tmp_path}/mri/magnitude/train"
    assert configure("data=public", "noise=0.1").noise == 0.1, "the command line wins"
    assert (configure("data=faces", "task=deblurring", "preset=paper").size) == "256"
    assert configure("task=ct").dataset.files is None
    with pytest.raises(UserError, match="data=scans has no list of images for task=ct"):
        configure("data=scans", "task=ct")
    with pytest.raises(UserError, match="dataset=folder and data=public both say"):
        check_words(["dataset=folder", "data=public"])


def test_pool_and_input_noise_count_only_where_they_are_used(configure: Configure) -> None:
    base = run_folder(configure("method=vanilla_dip"))
    assert run_folder(configure("method=vanilla_dip", "pool=x", "input_noise=3")) == base
    assert run_folder(configure("method=ref_guided_dip", "pool=x")) != run_folder(configure("method=ref_guided_dip"))
    normal = ("method=vanilla_dip", "input=normal")
    assert run_folder(configure(*normal, "input_noise=3")) != run_folder(configure(*normal))


@pytest.mark.parametrize(("task", "preset"), list(itertools.product(choices("task"), choices("preset"))))
def test_task_picks_its_defaults_and_each_can_be_overridden(configure: Configure, task: str, preset: str) -> None:
    cfg = configure(f"task={task}", f"preset={preset}")
    expected = {"mri": ("brain", "unet"), "ct": ("body", "unet")}.get(task, ("photos", "skip"))
    assert (cfg.dataset.name, cfg.network.name) == expected
    changed = configure(f"task={task}", f"preset={preset}", "dataset=folder", "network=shallow", "network.width=5")
    assert (changed.dataset.name, changed.network.depth, changed.network.width) == ("folder", 2, 5)


def test_the_papers_values_are_the_defaults(configure: Configure) -> None:
    cfg = configure("preset=paper")
    assert (cfg.steps, cfg.N, cfg.lam, cfg.lr) == (4000, 2, 1.0, 1e-4)
    assert (cfg.residual, cfg.input_update, cfg.network.width) == ("squared", "network", 64)
    assert (cfg.accel, cfg.operator.coils, cfg.size) == (4, 15, "320")
    assert deviations(cfg) == {}
    assert set(deviations(configure("preset=quick", "lam=2"))) == {"steps", "N", "lr", "lam"}
    assert deviations(configure("preset=paper", "ema=0.9", "stop=wmv")) == {"ema": 0.9, "stop": "wmv"}
    assert deviations(configure("preset=paper", "method=es_dip")) == {}
    assert deviations(configure("preset=paper", "method=es_dip", "stop=none")) == {"stop": "none"}
    assert deviations(configure("preset=paper", "method=tv_dip")) == {"method.rho": 0.01}
    assert deviations(configure("preset=paper", "method=tv_dip", "method.rho=1")) == {}


def test_an_experiment_can_set_any_knob_and_the_command_line_wins(configure: Configure) -> None:
    cfg = configure("experiment=lambda_ablation", "preset=paper")
    assert (cfg.task.name, cfg.steps) == ("mri", 10000)
    assert configure("experiment=lambda_ablation", "preset=quick").steps == 2500
    assert configure("experiment=lambda_ablation", "preset=quick", "steps=20").steps == 20


def test_names_in_the_schema_are_those_of_the_code() -> None:
    fields = dict(knobs())
    assert set(METHODS) == set(choices("method"))
    assert set(fields["method.name"].metadata["choices"]) == set(METHODS)
    assert set(fields["network.name"].metadata["choices"]) == set(NETWORKS)
    assert set(fields["task.name"].metadata["choices"]) == set(choices("task")) == set(TASK_KNOBS)


def test_knobs_named_in_identities_exist() -> None:
    names = [name for name, _ in knobs()]
    roots = {name.split(".")[0] for name in names}
    used = {
        *COMMON_KNOBS,
        *itertools.chain(*TASK_KNOBS.values()),
        *itertools.chain(*(m.knobs for m in METHODS.values())),
    }
    assert used <= set(names) | roots


def test_folder_depends_on_what_matters_alone(configure: Configure) -> None:
    base = run_folder(configure())
    assert run_folder(configure("images=3", "tracker=wandb", "views=18", "checkpoint_minutes=5")) == base
    assert run_folder(configure("lam=2")) != base
    assert run_folder(configure("noise=0.1")) != base
    assert run_folder(configure("method=vanilla_dip", "lam=2")) == run_folder(configure("method=vanilla_dip"))
    assert run_folder(configure("method=direct", "steps=2", "lr=5", "network=skip")) == run_folder(
        configure("method=direct")
    )
    assert "lam" in identity(configure())


def test_help_names_every_knob_and_choice() -> None:
    text = help_text()
    missing = [name for name, _ in knobs() if not name.endswith(".name") and f"  {name} " not in text]
    assert not missing
    assert all(f.metadata["help"] for _, f in knobs())
    assert all(choice in text for _, choice in PAIRS)


def test_every_yaml_says_what_it_is_for() -> None:
    bare = [p for p in config_folder().rglob("*.yaml") if "#" not in p.read_text()]
    assert not bare, "these have no comment: " + ", ".join(p.name for p in bare)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lam=abc", "lam=abc: expected a number .*autoencoding"),
        ("lam=0.5,x", "lam=x: expected a number"),
        ("lam=-1", "at least 0"),
        ("stepz=10", "no setting 'stepz'. Did you mean steps"),
        ("network.widht=3", r"Did you mean network\.width"),
        ("accel=0", "accel=0.0: expected more than 1"),
        ("steps=0", "at least 1"),
        ("steps=1.5", "expected a whole number"),
        ("lr=0", "more than 0"),
        ("hiar=0.95", "at most 0.9"),
        ("sigma=-3", "at least 0"),
        ("views=0", "at least 1"),
        ("lam=inf", "a finite number"),
        ("residual=huber", "one of squared, norm"),
        ("task=pet", "task=pet: expected one of ct, deblurring"),
        ("dataset=cbsd", "expected one of aapm"),
        ("mri", "'mri' is not a setting: write name=value"),
        ("data_root=[a", "cannot be read"),
    ],
)
def test_wrong_words_are_refused_with_a_reason(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_words(["method=aseqdip", word])


@pytest.mark.parametrize(
    "word",
    ["lam=0.5,1,2", "steps=10", "images=[0,a]", "images=0:5", "images=all", "task=mri,ct", "operator.center_fraction=null",
     "lr=1e-3", "N=range(1,4)", "hydra.sweep.dir=x", "data_root=${oc.env:HOME}", "experiment=null", "-m", "--multirun", "--cfg=job"],
)  # fmt: skip
def test_good_words_pass(word: str) -> None:
    check_words([word])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("steps=5", "N=2"), "steps=5 is not a multiple of N=2.*use steps=4"),
        (("size=big",), "expected a number of pixels"),
        (("dataset.hu_low=3000",), "must be below"),
        (("operator.kernel_size=4",), "odd number"),
    ],
)
def test_values_that_do_not_go_together(configure: Configure, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        configure(*overrides)


def test_seeds_are_a_list_not_a_sweep() -> None:
    assert write_list("seeds=0,1,2") == "seeds=[0,1,2]"
    assert write_list("seeds=[3]") == "seeds=[3]"
    assert write_list("seed=0,1") == "seed=0,1", "a sweep"


def test_home_folder_is_filled_in() -> None:
    assert expand_home("outputs=~/x") == f"outputs={Path.home() / 'x'}"
    assert expand_home("lam=1") == "lam=1"
    assert expand_home("~lam") == "~lam"


def test_the_folders_of_our_data_sets_are_known() -> None:
    sets = [OmegaConf.load(path) for path in config_folder().glob("dataset/*.yaml")]
    lists = [OmegaConf.load(path) for path in config_folder().glob("data_task/*.yaml")]
    named = [found.dataset for found in lists if "dataset" in found]
    assert {found.name: found.folder for found in named} == LISTS
    assert {found.name: found.folder for found in [*sets, *named] if found.folder} == FOLDERS
    assert not any("hu_low" in found or "hu_high" in found for found in [*sets, *named])


def test_unknown_key_in_yaml_is_refused(configure: Configure) -> None:
    with pytest.raises(UserError, match="stepz"):
        configure("stepz=3")
