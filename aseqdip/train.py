"""Train a prior or another network: python -m aseqdip.train prior=mr data_root=/my/data. Recipes: configs/training/.

It saves and stops after ``minutes`` and at Ctrl-C; the same command goes on from there, to the same bits on a CPU. With
more ``steps`` a prior that is finished is trained further.
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from aseqdip.engine import Engine, pick_device
from aseqdip.errors import UserError, near
from aseqdip.figures import new_figure, save
from aseqdip.files import check_writable, claimed, write_atomically, write_text
from aseqdip.operators.coils import simulated_coils
from aseqdip.operators.mri import MultiCoilMRI, cartesian_mask
from aseqdip.parts import knob, make_options
from aseqdip.priors import file_of
from aseqdip.priors.denoiser import Denoiser
from aseqdip.priors.files import FAMILIES, Card, read, write
from aseqdip.priors.recipes import UNITS, Patches, Recipe, below, coloured, recipe, with_phase
from aseqdip.priors.trained import Unrolled
from aseqdip.problem import generator
from aseqdip.run.interrupt import UNFINISHED, Interrupt

log = logging.getLogger(__name__)

#: noise levels of the validation, in 255ths of the range's upper half as for pictures in 0..255
LEVELS = (5, 15, 25, 50, 100)
#: the mean squared error that a good denoiser of pictures in [0, 1] leaves is about s^2 e / (s + e) at noise level s
ERROR = 0.0065
#: measurements of MRI: accelerations, coils, largest standard deviation of the noise
ACCELERATIONS, COILS, NOISE = (4, 8), 8, 0.03


@dataclass
class Settings:
    """What there is to set."""

    prior: str = knob("what to train: the name of a file in configs/training, or the path of one like it", "natural")
    data_root: str = knob("folder that holds the data", "data")
    out: str = knob("folder of the checkpoint, the curve and the prior; default: outputs/training/PRIOR", "")
    steps: int = knob("updates in all; the learning rate falls to nothing by then", 20000, low=1)
    batch: int = knob("patches an update", 16, low=1)
    lr: float = knob("AdamW's highest learning rate", 1.5e-3, above=0)
    minutes: float | None = knob("stop, to go on later, after so many", None, above=0)
    begin: str | None = knob("prior to begin with, by name or file; default: random weights", None)
    every: int = knob("updates between validations, each with a checkpoint", 1000, low=1)
    seed: int = knob("of weights, patches and noise", 0, low=0)
    device: str = knob("auto, cpu, cuda ...", "auto")
    devices: int = knob("GPUs, or processes on a CPU, that share each batch (pip install 'aseqdip[train]')", 1, low=1)
    precision: str = knob("auto is bf16 where the hardware has it", "auto", choices=("auto", "fp32", "bf16"))


def measured(clean: Tensor, accel: int, rng: torch.Generator) -> tuple[MultiCoilMRI, Tensor, Tensor]:
    """An operator, noisy measurements of the images by it, and the images, scaled as task=mri scales both."""
    width = clean.shape[-1]
    maps = simulated_coils(COILS, (clean.shape[-2], width), rng)
    mask = cartesian_mask("random", width, accel, 0.32 / accel, np.random.RandomState(below(2**31, rng)))
    A = MultiCoilMRI(maps, mask)
    y = A(clean)
    sigma = NOISE * torch.rand(len(clean), 1, 1, 1, generator=rng)
    y = y + sigma * 2**0.5 * torch.randn(y.shape, generator=rng, dtype=y.dtype)
    magnitude = A.adjoint(y).square().sum(1).sqrt()
    level = magnitude.flatten(1).quantile(0.999, dim=1).reshape(-1, 1, 1, 1)
    return A, y / level, clean / level


def loss_of(training: "Training") -> Tensor:
    """The loss of the next batch, or of this process's share of it."""
    network, step = training.plan.network, training.step
    device = training.engine.device
    clean, noise, sigma = map(training.ranks.share, training.patches[step])
    if network == "autoencoder":
        clean = clean.to(device)
        return (training.run(clean) - clean).square().mean()
    if network == "unrolled":  # in units of the error of the zero-filled image
        rng = generator(training.settings.seed, "measurements", step)
        A, y, clean = measured(clean, ACCELERATIONS[below(2, rng)], rng)
        A, y, clean = A.to(device), y.to(device), clean.to(device)
        start = A.adjoint(y)
        errors = [(image - clean).square().mean((1, 2, 3)) for image in (training.run(start, A, y), start)]
        return (errors[0] / errors[1]).mean()
    return denoising_loss(training.run, *(t.to(device) for t in (clean, noise, sigma)))


def denoising_loss(network: Any, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared error, each noise level in units of the error that a good denoiser leaves at it."""
    error = network(clean + sigma[:, None, None, None] * noise, sigma) - clean
    usual = sigma.square() * ERROR / (sigma + ERROR)
    return (error.square().mean((1, 2, 3)) / usual).mean()


class Ranks:
    """The processes that train one network together, a device each, by Lightning Fabric; or this one alone.

    The first starts the others, which run the same command. All draw the same batch, each computes the loss of its
    share, and gradients are averaged, so that networks stay the same everywhere; the first alone writes and speaks.
    Raises UserError where Fabric is not installed, or a batch cannot be shared.
    """

    def __init__(self, settings: Settings) -> None:
        self.rank, self.count, self.device = 0, settings.devices, settings.device
        if self.count == 1:
            return
        if settings.batch % self.count:
            raise UserError(f"batch={settings.batch} cannot be shared by devices={self.count}: use a multiple of it.")
        try:
            from lightning_fabric import Fabric
        except ImportError as error:
            raise UserError(
                f"devices={self.count} needs lightning-fabric: pip install 'aseqdip[train]', or leave it out."
            ) from error
        kind = pick_device(settings.device).type
        self.fabric: Any = Fabric(accelerator=kind, devices=self.count, strategy="ddp")
        self.fabric.launch()
        self.rank, self.device = self.fabric.global_rank, str(self.fabric.device)

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return bool(self.rank == 0)

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch."""
        return batch[self.rank :: self.count]

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Make gradients the mean over all processes."""
        if self.count > 1:
            mean = self.fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
            for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def any(self, stop: bool) -> bool:
        """Whether any of them is to stop: then all of them do, after the same update."""
        if self.count == 1:
            return stop
        return bool(self.fabric.all_reduce(torch.tensor(float(stop), device=self.device), reduce_op="sum") > 0)


class Training:
    """A network on its way, and everything that must survive a kill."""

    def __init__(self, settings: Settings, plan: Recipe, patches: Patches, ranks: Ranks) -> None:
        self.settings, self.plan, self.patches, self.ranks = settings, plan, patches, ranks
        self.engine = Engine(ranks.device, settings.precision)
        with torch.random.fork_rng([]):
            torch.manual_seed(settings.seed)
            network, average = (FAMILIES[plan.network](plan.channels) for _ in range(2))
        if settings.begin is not None:
            network = begun_from(settings.begin, plan, network)
        average.load_state_dict(network.state_dict())
        self.network, self.average = (self._placed(each) for each in (network, average))
        self.optimiser = torch.optim.AdamW(self.network.parameters(), settings.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        self.step, self.seconds, self.curve = 0, 0.0, list[dict[str, float]]()

    def _placed(self, network: Any) -> Any:
        return network.to(self.engine.device, memory_format=self.engine.layout)

    def update(self) -> Tensor:
        """One update; its loss."""
        self.optimiser.param_groups[0]["lr"] = self.rate()
        loss = loss_of(self)
        self.optimiser.zero_grad()
        loss.backward()
        self.ranks.average([p.grad for p in self.network.parameters() if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            weight = 1 - min(0.999, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), weight)
        return loss.detach()

    def run(self, x: Tensor, *others: Any) -> Tensor:
        """The network in the engine's precision."""
        with torch.autocast(self.engine.device.type, torch.bfloat16, self.engine.precision == "bf16"):
            found: Tensor = self.network(x.contiguous(memory_format=self.engine.layout), *others)
        return found.float()

    def rate(self) -> float:
        """Half a cosine after a rise of 300 updates."""
        done = self.step / self.settings.steps
        return self.settings.lr * min(1, (self.step + 1) / 300) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only: safe to load with ``weights_only=True``."""
        parts = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimiser")}
        return {**parts, "step": self.step, "seconds": self.seconds, "curve": self.curve, "of": self.identity()}

    def identity(self) -> dict[str, Any]:
        """What may not change on the way: its card says it of all updates."""
        own = {name: getattr(self.settings, name) for name in ("batch", "lr", "begin", "seed")}
        counts = [len(source) for source in self.patches.images]
        return {**own, "images": counts, "content": self.patches.content, **asdict(self.plan)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state."""
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(saved[name])
        self.step, self.seconds, self.curve = saved["step"], saved["seconds"], saved["curve"]


def begun_from(name: str, plan: Recipe, fresh: nn.Module) -> nn.Module:
    """A trained network, to be trained further; in one that is unrolled, a denoiser. UserError for one that is other.

    Args:
        fresh: the network with random weights.
    """
    card, network = read(file_of(name))
    if card.channels != plan.channels:
        raise UserError(f"begin={name} has {card.channels} channels; {plan.channels} are to be trained.")
    if isinstance(fresh, Unrolled) and isinstance(network, Denoiser):
        fresh.denoiser.load_state_dict(network.state_dict())
        return fresh
    if card.family != plan.network:
        raise UserError(f"begin={name} is of the family {card.family}; {plan.network} is to be trained.")
    return network.requires_grad_()


def validate(network: Any, plan: Recipe, images: Sequence[Tensor]) -> dict[str, float]:
    """PSNR in dB over the images, against a peak of 1, the same noise for every network: by noise level or
    acceleration.

    Args:
        images: as ``Source.images`` gives them; at most 8 are taken, the central 192 x 192 pixels of each.
    """
    errors: dict[str, list[float]] = {}
    for number, image in enumerate(images[:: max(1, len(images) // 8)][:8]):
        rng = generator("validation", number)
        rows, columns = (max(0, (side - 192) // 2) for side in image.shape[-2:])
        clean = coloured(image, plan)[None, :, rows : rows + 192, columns : columns + 192]
        clean = with_phase(clean, rng) if plan.complex else clean
        with torch.no_grad():
            for name, error in errors_of(network, plan.network, clean, rng):
                errors.setdefault(name, []).append(float(error.square().mean()))
    return {level: round(-10 * sum(map(math.log10, found)) / len(found), 3) for level, found in errors.items()}


def errors_of(network: Any, kind: str, clean: Tensor, rng: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """What a network leaves wrong of an image, by noise level, acceleration, or as it is."""
    device = next(network.parameters()).device
    if kind == "autoencoder":
        yield "0", network(clean.to(device)).cpu() - clean
    elif kind == "unrolled":
        for accel in ACCELERATIONS:
            A, y, scaled = measured(clean, accel, rng)
            A, y = A.to(device), y.to(device)
            yield str(accel), (network(A.adjoint(y), A, y).cpu() - scaled) * (clean.norm() / scaled.norm())
    else:
        noise = torch.randn(clean.shape, generator=rng)
        for level in LEVELS:
            sigma = torch.tensor(level / 255)
            yield str(level), network((clean + sigma * noise).to(device), sigma.to(device)).cpu() - clean


def train(settings: Settings) -> Training:
    """Train, or go on; writes checkpoint.pt, curve.csv, curve.png and PRIOR.safetensors. UserError for bad input."""
    plan, name = recipe(settings.prior), Path(settings.prior).stem
    out = Path(settings.out or f"outputs/training/{name}")
    check_writable(out)
    ranks = Ranks(settings)
    with claimed(out) if ranks.first else contextlib.nullcontext(True) as free:
        if not free:
            raise UserError(f"Another process trains in {out}: set out=... to another folder.")
        root = Path(settings.data_root)
        sources = [source.images(root) for source in plan.sources]
        validation = plan.validation.images(root)
        trained = {path.resolve() for source in sources for path in source}
        if shared := [path for path in validation if path.resolve() in trained]:
            raise UserError(f"validation: {min(shared)} is trained on, too: leave it out there (without: ...).")
        images, held_out = [list(source.values()) for source in sources], list(validation.values())
        if ranks.first:
            log.info("%s images, %s held out, in %s", sum(map(len, images)), len(held_out), out)
        training = Training(settings, plan, Patches(plan, images, settings.batch, settings.seed), ranks)
        resume(training, out / "checkpoint.pt")
        for _ in _updates(training):
            if not ranks.first:  # it waits, with its next gradients, until the first has written
                continue
            training.curve.append({"step": training.step, **validate(training.average, plan, held_out)})
            keep(training, out, name, sum(map(len, images)))
    return training


def _updates(training: Training) -> Iterator[None]:
    """Updates to the end, or until it is told to stop; yields where it is time to validate and save."""
    s, begun, before = training.settings, time.time(), training.seconds
    deadline = None if s.minutes is None else begun + 60 * s.minutes
    speaks = training.ranks.first
    progress = tqdm(total=s.steps, initial=training.step, unit="it", mininterval=5, disable=not speaks)
    with Interrupt(deadline) as interrupt, progress as bar:
        stop = False
        while training.step < s.steps and not stop:
            loss = training.update()
            bar.update()
            training.seconds, stop = before + time.time() - begun, training.ranks.any(interrupt.due)
            if training.step % s.every == 0 or training.step == s.steps or stop:
                yield
                if not speaks:
                    continue
                name, value = list(training.curve[-1].items())[len(training.curve[-1]) // 2]
                bar.set_postfix_str(f"loss {float(loss):.3f}, {value:.2f} dB at {name}{UNITS[training.plan.network]}")


def resume(training: Training, path: Path) -> None:
    """Take over a checkpoint, if there is one. Raises UserError for one that does not fit, or of other settings."""
    if not path.exists():
        return
    otherwise = "remove it, or set out=... to another folder, there with begin=... to train its prior further"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        training.load_state_dict(saved)
        before, now = saved["of"], training.identity()
    except torch.OutOfMemoryError:  # no fault of the file's
        raise
    except Exception as error:  # torch raises many kinds
        raise UserError(f"{path} does not fit ({error}): {otherwise}.") from error
    if changed := [f"{name}={before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]:
        raise UserError(f"{path} was begun with {'; '.join(changed)}: {otherwise}.")
    if training.step >= training.settings.steps:
        log.info("All %s updates are made: a larger steps=... trains it further.", training.step)


def keep(training: Training, out: Path, name: str, images: int) -> None:
    """Write what has been reached."""
    plan, curve = training.plan, training.curve
    write_atomically(out / "checkpoint.pt", lambda file: torch.save(training.state_dict(), file))
    lines = [",".join(curve[0]), *(",".join(map(str, row.values())) for row in curve)]
    write_text(out / "curve.csv", "\n".join(lines) + "\n")
    figure, (axes,) = new_figure(1, 3.0, 4.5)
    for level in list(curve[0])[1:]:
        axes.plot([row["step"] for row in curve], [row[level] for row in curve], label=level + UNITS[plan.network])
    axes.set(xlabel="updates", ylabel="PSNR on held-out images (dB)", title=name)
    axes.legend(fontsize="small")
    save(figure, out / "curve.png")
    card = Card(
        plan.network, training.average.arguments, plan.channels,
        low=-1.0 if plan.complex else 0.0, complex=plan.complex, name=name, data=plan.files(), images=images,
        steps=training.step, hours=round(training.seconds / 3600, 2), licence=plan.licence,
        begun_from=training.settings.begin or "", psnr={k: v for k, v in curve[-1].items() if k != "step"},
    )  # fmt: skip
    write(out / f"{name}.safetensors", card, training.average.state_dict())


def settings(words: Sequence[str]) -> Settings:
    """Settings from words such as steps=1000. Raises UserError for one that is not understood."""
    known = [f.name for f in fields(Settings)]
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            raise UserError(
                f"{word}: expected NAME=VALUE of {', '.join(known)}. Nearest: {near(key, known) or 'none'}."
            )
        values[key] = value
    return make_options(Settings, values)


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    words = sys.argv[1:] if words is None else words
    if {"--help", "-h"} & set(words):
        sys.stdout.write(
            f"{__doc__}\n" + "".join(f"{f.name}={f.default}  {f.metadata['help']}\n" for f in fields(Settings))
        )
        return
    try:
        if (training := train(settings(words))).step < training.settings.steps:
            sys.exit(UNFINISHED)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
