"""Training of priors: three updates on tiny images, going on to the same bits, and what may be trained on."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from data.test_ct_slices import write_dicom
from omegaconf import OmegaConf
from PIL import Image

from aseqdip import priors
from aseqdip.errors import UserError
from aseqdip.files import config_folder
from aseqdip.priors.files import read
from aseqdip.priors.recipes import Patches, Recipe, Source, recipe, with_phase
from aseqdip.train import Ranks, Settings, Training, main, settings, train, validate

RECIPES = sorted(path.stem for path in (config_folder() / "training").glob("*.yaml"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three small colour pictures, the last held out, and a recipe for them."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "held_out"):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "mine.yaml").write_text(
        "channels: 3\nsources: [{reader: picture, folder: '', files: ['*'], without: [held*], share: 1}]\n"
        "validation: {reader: picture, folder: '', files: [held*]}\nlicence: none\n"
    )
    return tmp_path


def words(pictures: Path, *more: str) -> Settings:
    common = (f"prior={pictures / 'mine.yaml'}", f"data_root={pictures}", f"out={pictures / 'out'}", "device=cpu")
    return settings([*common, "steps=3", "batch=2", "every=2", *more])


def test_three_updates_leave_a_prior_with_its_card(pictures: Path) -> None:
    training = train(words(pictures))
    card, network = read(pictures / "out" / "mine.safetensors")
    assert (card.steps, card.images, card.channels, card.data) == (3, 2, 3, ["/*"])
    x, sigma = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1])
    kept = training.average(x, sigma)
    torch.testing.assert_close(network(x, sigma), kept, atol=1e-2, rtol=0)  # bf16 on disk
    curve = (pictures / "out" / "curve.csv").read_text().splitlines()
    assert curve[0] == "step,5,15,25,50,100" and [line.split(",")[0] for line in curve[1:]] == ["2", "3"]
    assert (pictures / "out" / "curve.png").stat().st_size > 1000
    assert float(curve[-1].split(",")[5]) == card.psnr["100"] > 7.5


def test_it_goes_on_to_the_same_bits(pictures: Path) -> None:
    whole = train(words(pictures, "steps=4"))
    parts = (f"out={pictures / 'parts'}", "steps=4", "every=1")
    train(words(pictures, *parts, "minutes=0.00001"))  # one update
    resumed = train(words(pictures, *parts))
    for ours, theirs in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed.step == 4 and [row["step"] for row in resumed.curve] == [1, 2, 3, 4]


def test_another_prior_is_trained_further(pictures: Path) -> None:
    first = train(words(pictures, "steps=2"))
    again = train(
        words(pictures, f"begin={pictures / 'out' / 'mine.safetensors'}", f"out={pictures / 'more'}", "lr=1e-9")
    )
    kept = [p.bfloat16().float() for p in first.average.parameters()]
    for ours, theirs in zip(again.network.parameters(), kept, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert read(pictures / "more" / "mine.safetensors")[0].begun_from.endswith("mine.safetensors")
    with pytest.raises(UserError, match="begin=ct has 1 channels; 3 are to be trained"):
        train(words(pictures, "begin=ct", f"out={pictures / 'other'}"))


@pytest.mark.parametrize(("network", "levels"), [("unrolled", "4,8"), ("autoencoder", "0")])
def test_other_networks_are_trained_likewise(tmp_path: Path, network: str, levels: str) -> None:
    for name in ("a", "held_out"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((70, 80)))
    (tmp_path / "mine.yaml").write_text(
        f"network: {network}\nside: 32\nchannels: 2\ncomplex: true\n"
        "sources: [{reader: complex, folder: '', files: [a*]}]\n"
        "validation: {reader: complex, folder: '', files: [h*]}\n"
    )
    begin = ("begin=mr",) if network == "unrolled" else ()
    train(words(tmp_path, *begin))
    card, trained = read(tmp_path / "out" / "mine.safetensors")
    assert (card.family, card.complex, list(card.psnr)) == (network, True, levels.split(","))
    assert (tmp_path / "out" / "curve.csv").read_text().startswith(f"step,{levels}\n")
    if network == "unrolled":
        mr = read(priors.shipped()["mr"])[1].state_dict()
        torch.testing.assert_close(trained.denoiser.state_dict(), mr, rtol=0.02, atol=0.01)
    else:
        with pytest.raises(UserError, match="begin=mr is of the family denoiser; autoencoder is to be trained"):
            train(words(tmp_path, "begin=mr", f"out={tmp_path / 'other'}"))


def test_training_lowers_the_loss(pictures: Path) -> None:
    plan = Recipe(1, [Source("picture", "", ["*"])], Source("picture", "", ["*"]))
    patches = Patches(plan, [[torch.full((1, 64, 64), 0.5)]], batch=2, seed=0)
    chosen = Settings(precision="fp32", device="cpu")
    training = Training(chosen, plan, patches, Ranks(chosen))
    before = validate(training.network, plan, [torch.full((1, 64, 64), 0.5)])
    for _ in range(30):
        training.update()
    after = validate(training.network, plan, [torch.full((1, 64, 64), 0.5)])
    assert after["50"] > before["50"] + 0.2


def test_patches_are_a_function_of_their_number() -> None:
    plan = Recipe(2, [Source("complex", "", ["*"])], Source("complex", "", ["*"]), complex=True)
    image = torch.rand(1, 90, 70, generator=torch.Generator().manual_seed(0))
    first, again = (Patches(plan, [[image]], batch=3, seed=1)[7] for _ in range(2))
    assert all(map(torch.equal, first, again))
    clean, noise, sigma = first
    assert clean.shape == noise.shape == (3, 2, 64, 64) and sigma.shape == (3,)
    assert 0.003 <= float(sigma.min()) <= float(sigma.max()) <= 1


def test_phase_keeps_the_magnitude() -> None:
    magnitude = torch.rand(2, 1, 8, 9, generator=torch.Generator().manual_seed(0))
    image = with_phase(magnitude, torch.Generator().manual_seed(1))
    torch.testing.assert_close(image.square().sum(1, keepdim=True).sqrt(), magnitude)


@cache
def listed() -> list[str]:
    """The files of every list of images."""
    files: list[str] = []
    for path in (config_folder() / "data_task").glob("*.yaml"):
        files += [Path(name).name for name in OmegaConf.load(path).get("dataset", {}).get("files", [])]
    return files


def whose(name: str) -> str:
    """A pattern for the files of whoever a listed file shows."""
    if "TCGA-" in name:
        return f"*{name[name.index('TCGA-') :]}"
    subject = name.removesuffix(".npz").rstrip("0123456789")  # of cardiac_*, whose patients are not known, all
    return f"{subject}[0-9]*.npz" if name.endswith(".npz") else name


@pytest.mark.parametrize("name", RECIPES)
def test_nobody_who_is_reported_or_tuned_on_is_trained_on(name: str) -> None:
    plan = recipe(name)
    for file in listed():
        for source in plan.sources:
            assert not source.has(file), f"{name} trains on {file}"
            # of the same subject, by another number
            other = whose(file).replace("*TCGA", "ID_9999_TCGA").replace("[0-9]*", "0")
            assert not source.has(other), f"{name} trains on {other}, of the same subject as {file}"


@pytest.mark.parametrize(("name", "path"), list(priors.shipped().items()))
def test_shipped_priors_were_trained_on_what_their_recipe_says(name: str, path: Path) -> None:
    card, plan = read(path)[0], recipe(name)
    assert (card.data, card.channels, card.complex) == (plan.files(), plan.channels, plan.complex)
    assert (card.low, card.high, card.licence) == (-1 if plan.complex else 0, 1, plan.licence)


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_held_out_is_not_trained_on(data: Path, name: str) -> None:
    plan = recipe(name)
    held_out = {f.name for f in (data / plan.validation.folder).iterdir() if plan.validation.has(f.name)}
    used = {f.name for s in plan.sources for f in (data / s.folder).iterdir() if s.has(f.name)}
    assert held_out and len(used) > 60 and not held_out & used
    patterns = {whose(file) for file in listed()}
    assert not {name for name in used if any(Path(name).match(pattern) for pattern in patterns)}


def test_what_is_not_understood_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"step=3: expected NAME=VALUE of .*Nearest: steps"):
        settings(["step=3"])
    with pytest.raises(UserError, match="steps=0: expected at least 1"):
        settings(["steps=0"])
    with pytest.raises(UserError, match="prior=nosuch: expected one of autoencoder, ct, grey"):
        recipe("nosuch")
    with pytest.raises(SystemExit, match="data_root"):
        main(["prior=ct", f"data_root={tmp_path}", f"out={tmp_path / 'out'}"])
    main(["--help"])
    assert "minutes=None" in capsys.readouterr().out


def test_images_beyond_the_range_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((8, 8), 300.0))
    with pytest.raises(UserError, match="expected magnitudes up to 1; found 300"):
        Source("complex", "", ["*"]).images(tmp_path)


def test_images_too_dark_to_be_on_that_scale_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((8, 8), 2e-6))
    with pytest.raises(UserError, match="expected magnitudes up to 1; found 2e-06"):
        Source("complex", "", ["*"]).images(tmp_path)


def test_slices_of_a_series_keep_one_scale(tmp_path: Path) -> None:
    for name, value in (("a", 100), ("b", 400)):
        kind = {"Modality": "MR", "SeriesInstanceUID": "1.2", "RescaleSlope": 1, "RescaleIntercept": 0}
        write_dicom(tmp_path / f"{name}.dcm", np.full((16, 16), value, np.uint16), **kind)
    found = Source("dicom", "", ["*"]).images(tmp_path)
    assert sorted(float(image.max()) for image in found.values()) == [0.25, 1.0]


def test_that_one_slice_was_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 8, 8)))
    assert len(Source("complex", "", ["*"]).images(tmp_path)) == 1
    assert "a.npy, slice 2: slice 2 of 4 was taken" in caplog.text


def test_what_is_trained_on_cannot_be_held_out(pictures: Path) -> None:
    path = pictures / "mine.yaml"
    path.write_text(path.read_text().replace("without: [held*]", "without: []"))
    with pytest.raises(UserError, match="held_out.png is trained on, too"):
        train(words(pictures))
    (pictures / "again").symlink_to(pictures, target_is_directory=True)
    path.write_text(
        path.read_text().replace(
            "validation: {reader: picture, folder: ''", "validation: {reader: picture, folder: again"
        )
    )
    with pytest.raises(UserError, match="held_out.png is trained on, too"):
        train(words(pictures))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("licence", "network: denoisr\nlicence", "network: denoisr; expected denoiser, unrolled, autoencoder"),
        ("channels: 3", "channels: 2", "channels: 2; expected 2 with complex: true"),
        ("channels: 3", "channels: 1\ncomplex: true", "channels: 1; expected 2 with complex: true"),
        ("share: 1", "share: 0", "share: expected one above 0"),
        ("licence", "side: 0\nlicence", "side and share: expected at least 1"),
        ("licence", "side: 16.5\nlicence", "expected complex: true or false, channels and side: whole numbers"),
        ("licence", "complex: 'false'\nlicence", "expected complex: true or false"),
        ("licence", "network: unrolled\nlicence", "network: unrolled is one of complex images"),
        ("files: ['*']", "files: '*'", r"sources: .*files: expected a list"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(pictures: Path, old: str, new: str, why: str) -> None:
    path = pictures / "mine.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"mine.yaml is no recipe of a training: {why}"):
        recipe(str(path))


def test_another_training_s_checkpoint_is_refused(pictures: Path) -> None:
    train(words(pictures, "steps=1"))
    (pictures / "mine.yaml").write_text((pictures / "mine.yaml").read_text().replace("channels: 3", "channels: 1"))
    with pytest.raises(UserError, match="does not fit"):
        train(words(pictures, "steps=2"))


@pytest.mark.parametrize("changed", ["lr=1e-4", "batch=1", "seed=1", "begin=natural"])
def test_other_settings_do_not_go_on_from_a_checkpoint(pictures: Path, changed: str) -> None:
    train(words(pictures, "steps=1"))
    with pytest.raises(UserError, match=rf"was begun with {changed.split('=')[0]}=.*, now .*set out="):
        train(words(pictures, "steps=2", changed))


def test_other_images_or_another_recipe_do_not_either(pictures: Path) -> None:
    train(words(pictures, "steps=1"))
    recipe = pictures / "mine.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("licence: none", "licence: free"))
    with pytest.raises(UserError, match="was begun with licence=none, now free"):
        train(words(pictures, "steps=2"))
    recipe.write_text(text)
    Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(pictures / "c.png")
    with pytest.raises(UserError, match=r"was begun with images=\[2\], now \[3\]"):
        train(words(pictures, "steps=2"))
    (pictures / "c.png").unlink()
    Image.fromarray(np.zeros((70, 80, 3), np.uint8)).save(pictures / "a.png")
    with pytest.raises(UserError, match=r"was begun with content=\w+, now \w+"):
        train(words(pictures, "steps=2"))


def test_a_finished_one_says_so(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(words(pictures, "steps=1"))
    with caplog.at_level("INFO"):
        assert train(words(pictures, "steps=1")).step == 1
    assert "All 1 updates are made: a larger steps=... trains it further." in caplog.text


def test_two_processes_share_a_batch_and_get_what_one_gets(pictures: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="devices=2 needs lightning-fabric")
    found = []
    for devices in (1, 2):
        said = [f"prior={pictures / 'mine.yaml'}", f"data_root={pictures}", f"out={pictures / str(devices)}"]
        more = ["device=cpu", "precision=fp32", "steps=2", "batch=4", f"devices={devices}"]
        command = [sys.executable, "-m", "aseqdip.train", *said, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("held out, in") == 1  # one of them speaks
        found.append(torch.load(pictures / str(devices) / "checkpoint.pt", weights_only=True)["network"])
    for name, weights in found[0].items():
        torch.testing.assert_close(weights, found[1][name], atol=1e-6, rtol=0)


def test_a_batch_that_cannot_be_shared(pictures: Path) -> None:
    with pytest.raises(UserError, match="batch=2 cannot be shared by devices=3"):
        train(words(pictures, "devices=3"))
