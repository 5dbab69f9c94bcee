"""Figure 6 of the paper (Appendix A.2): a 1-D residual network trained on noise from three inputs, against Theorem A.1."""

import logging
import math
import sys
import time
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from aseqdip import records
from aseqdip.config import Config
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.files import check_writable, claimed, write_atomically
from aseqdip.networks.blocks import initialise
from aseqdip.ntk import TAPS, Dynamics, kernels
from aseqdip.problem import generator
from aseqdip.report.fig6 import describe, draw, summarise
from aseqdip.run.interrupt import Interrupt
from aseqdip.runner import Summary, command_start

log = logging.getLogger(__name__)

SIZE, PERIODS, LAYERS = 100, 2, 5
INPUTS = ("signal x", "measurement y", "noise z")
FITTED = 0.01  # of the noise's energy: what is left of ||f - y||^2 once y counts as learned
KNOBS = ("study", "steps", "lr", "network.width", "network.init", "seed")
PAPER = {"lr": 5e-4, "network.width": 64, "network.init": "he"}
LOSS = "mean of squares; half their sum (Theorem A.1) is the same at 50 times the learning rate, where weights by He diverge"


def run(cfg: Config) -> Summary:
    """The study with each seed of a config; finished ones are skipped, unfinished continued. Raises UserError."""
    check_writable(Path(cfg.outputs))
    engine = Engine(cfg.device, "fp32")
    summary = Summary(Path(cfg.outputs) / cfg.study)
    deadline = None if cfg.budget_minutes is None else command_start() + 60 * cfg.budget_minutes
    with engine.current(), Interrupt(deadline) as interrupt:
        for seed in cfg.seeds or [cfg.seed]:
            one, name = replace(cfg, seed=seed, seeds=None), f"seed {seed}"
            folder = summary.folder / records.digest(identity(one))[:8]
            log.info("%s on %s, preset=%s, %s -> %s", cfg.study, engine.device, cfg.preset.name, name, folder)
            with claimed(folder) as free:
                if records.finished(folder):
                    summary.skipped.append(name)
                elif not free:
                    log.info("%s: another process is at work on it.", name)
                    summary.elsewhere.append(name)
                elif not interrupt.due:
                    try:
                        record = Study(one, engine, folder).run(interrupt)
                    except (UserError, OSError, RuntimeError) as error:  # a full disk, say
                        summary.failed[name] = str(error)
                        log.error("%s failed: %s", name, error)
                    else:
                        summary.records += [record] if record else []
    summary.interrupted, summary.late = interrupt.signal, interrupt.late
    return summary


def identity(cfg: Config) -> dict[str, Any]:
    """The knobs that can change the result, by dotted name."""
    return {name: attrgetter(name)(cfg) for name in KNOBS}


def signals(seed: int) -> Tensor:
    """x, y = x + n and z, the last two with noise N(0, 1); float64, shape (3, n).

    Both ends of the sinusoid are sampled, so that a period is not a whole number of samples: of samples whose
    surroundings are the same, the network with input x can only fit the mean, however long it is trained.
    """
    x = torch.sin(2 * math.pi * PERIODS * torch.linspace(0, 1, SIZE, dtype=torch.float64))
    n, z = (torch.randn(SIZE, generator=generator(seed, "fig6", what)).double() for what in ("noise", "input"))
    return torch.stack([x, x + n, z])


def initial_weights(cfg: Config) -> list[Tensor]:
    """Weights (out, in, taps) of the layers, then their biases (out,); float64."""
    channels = [1, *[cfg.network.width] * (LAYERS - 1), 1]
    with torch.device("meta"):  # drawn below, from a generator of our own
        network = nn.ModuleList(nn.Conv1d(a, b, TAPS) for a, b in pairwise(channels))
    network = network.to_empty(device="cpu")
    initialise(network, cfg.network.init, generator(cfg.seed, "fig6", "network"))
    parameters = dict(network.double().named_parameters())
    return [parameters[f"{i}.{kind}"].detach() for kind in ("weight", "bias") for i in range(LAYERS)]


class Networks:
    """f(z) = z + C5(relu(C4(... relu(C1(z))))), once for each input from the same weights, by gradient descent on
    ||f(z) - y||^2 / n. Convolutions are batched matrix products: twice as fast as grouped ones.

    Args:
        signals: x, y and z, shape (3, n).
        weights: of one network, as from ``initial_weights``.
        lr: learning rate beta.
    """

    def __init__(self, signals: Tensor, weights: list[Tensor], lr: float) -> None:
        self.x, self.y, self.inputs = signals[:1, None], signals[1:2, None], signals[:, None]
        flat = [w.movedim(2, 1).flatten(1) if w.ndim == 3 else w[:, None] for w in weights]
        self.weights = [w.repeat(len(signals), 1, 1).requires_grad_() for w in flat]
        self.lr = lr

    def outputs(self) -> Tensor:
        """f of each input, shape (3, 1, n)."""
        h = self.inputs
        for layer, (w, b) in enumerate(zip(self.weights[:LAYERS], self.weights[LAYERS:], strict=True)):
            p = F.pad(h.relu() if layer else h, (1, 1))
            h = torch.baddbmm(b, w, torch.cat((p[..., :-2], p[..., 1:-1], p[..., 2:]), 1))
        return self.inputs + h

    def step(self) -> Tensor:
        """One update; returns the mean squared error to x and to y of what f was before it, shape (2, 3)."""
        f = self.outputs()
        to_y = (f - self.y).square().mean((1, 2))
        gradients = torch.autograd.grad(to_y.sum(), self.weights)
        with torch.no_grad():
            torch._foreach_sub_(self.weights, gradients, alpha=self.lr)
        return torch.stack([(f.detach() - self.x).square().mean((1, 2)), to_y.detach()])


class Study:
    """One seed of the study, in its folder."""

    def __init__(self, cfg: Config, engine: Engine, folder: Path) -> None:
        self.cfg, self.engine, self.folder = cfg, engine, folder
        self.checkpoint = folder / "checkpoint.pt"
        self.signals = signals(cfg.seed)
        # double precision: late updates are below the rounding of single-precision weights
        moved = [w.to(engine.device) for w in (self.signals, *initial_weights(cfg))]
        self.networks = Networks(moved[0], moved[1:], cfg.lr)
        self.curve = torch.full((cfg.steps + 1, 2, 3), math.nan, dtype=torch.float64, device=engine.device)
        self.done, self.seconds = 0, 0.0

    def run(self, interrupt: Interrupt) -> dict[str, Any] | None:
        """The record; None if interrupted (then a checkpoint is there). Raises UserError where the descent diverges."""
        self._resume()
        begin = saved = time.monotonic()
        advance, last = self.engine.repeat(self.networks.step), self.cfg.steps
        pause = 0.5 if sys.stderr.isatty() else 30  # a log file is not to fill with redrawn bars
        steps = tqdm(range(self.done, last + 1), self.cfg.study, mininterval=pause, leave=False)
        for step in steps:
            self.curve[step] = advance()
            self.done = step + 1
            if step % 100 and step < last:
                continue  # looking at values and clocks costs time
            self._check()
            now = time.monotonic()
            if step < last and (interrupt.due or now - saved > 60 * self.cfg.checkpoint_minutes):
                self.seconds, begin, saved = self.seconds + now - begin, now, now
                self._save()
                if interrupt.due:
                    steps.close()
                    log.info("Stopped after %d of %d steps; the same command continues.", step + 1, last)
                    return None
        self.seconds += time.monotonic() - begin
        return self._write()

    def _check(self) -> None:
        if not self.curve[self.done - 1].isfinite().all():
            bad = int((~self.curve.isfinite().all(2).all(1)).nonzero()[0])
            raise UserError(
                f"Gradient descent diverged before step {bad}: expected a finite error. Take a lower lr (found "
                f"{self.cfg.lr:g}), or weights that start smaller (network.init=default)."
            )

    def _save(self) -> None:
        weights, curve = [w.detach() for w in self.networks.weights], self.curve[: self.done].clone()
        content = {"done": self.done, "seconds": self.seconds, "curve": curve, "weights": weights}
        write_atomically(self.checkpoint, lambda file: torch.save(content, file))

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            saved = torch.load(self.checkpoint, map_location=self.engine.device, weights_only=True)
        except Exception as error:  # a damaged file raises many kinds; starting over is always right
            log.warning("%s is damaged (%s); starting from the beginning.", self.checkpoint, error)
            return
        with torch.no_grad():
            torch._foreach_copy_(self.networks.weights, saved["weights"])
        self.done, self.seconds = saved["done"], saved["seconds"]
        self.curve[: self.done] = saved["curve"]
        log.info("Resumed after %d steps.", self.done)

    def _write(self) -> dict[str, Any]:
        """Curves, figure, and last of all the record."""
        cfg, curve = self.cfg, self.curve.cpu()
        theory = predict(cfg, self.signals)
        noise = float((self.signals[1] - self.signals[0]).square().mean())
        steps = torch.from_numpy(np.unique(np.geomspace(1, cfg.steps, 400).round())).double()
        steps = torch.cat([torch.zeros(1, dtype=steps.dtype), steps])
        shown = curve[steps.long()]
        mean = torch.stack([(t.outputs(steps) - self.signals[0]).square().mean(1) for t in theory], 1)
        single = mean + torch.stack([t.spread(steps) for t in theory], 1)
        arrays = {"signals": self.signals, "steps": steps, "error": shown[:, 0], "residual": shown[:, 1]}
        arrays |= {"theory": mean, "theory_single": single}
        records.write_arrays(self.folder / "curves.npz", **arrays)
        record = self._record(
            noise, summarise(curve.numpy(), noise, FITTED), [t.fit(FITTED * noise * SIZE) for t in theory]
        )
        draw(self.folder / "fig6.png", {name: a.numpy() for name, a in arrays.items()}, record)
        records.write_json(self.folder / "record.json", record)
        self.checkpoint.unlink(missing_ok=True)
        describe(record)
        return record

    def _record(self, noise: float, measured: list[dict[str, Any]], theory: list[int | None]) -> dict[str, Any]:
        cfg, device = self.cfg, self.engine.device
        x, _, z = (m["fitted_at"] for m in measured)
        changed = {name: value for name, value in identity(cfg).items() if PAPER.get(name, value) != value}
        return {
            "schema": 1,
            "study": cfg.study,
            "preset": cfg.preset.name,
            "deviations_from_paper": {"loss": LOSS, **changed},
            "noise_level": noise,
            "inputs": {name: {**m, "theory_fitted_at": t} for name, m, t in zip(INPUTS, measured, theory, strict=True)},
            "ratio": z and (x or cfg.steps) / z,
            "ratio_is_lower_bound": x is None,
            "theory_ratio": theory[0] and theory[2] and theory[0] / theory[2],
            "steps": cfg.steps,
            "seconds": round(self.seconds, 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": "fp64",
            "seed": cfg.seed,
            "versions": records.environment(),
            "identity": identity(cfg),
        }


def predict(cfg: Config, signals: Tensor) -> list[Dynamics]:
    """Theorem A.1 for each input, with the kernel of a network of this width."""
    rate = 2 * cfg.lr / SIZE  # of the mean of squares
    width, init = cfg.network.width, cfg.network.init
    return [Dynamics(z, signals[1], *kernels(z, width, LAYERS, init), rate) for z in signals]
