"""Figure 6 of the paper (Appendix A.2): a 1-D residual network trained from three inputs, against Theorem A.1."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aseqdip import records
from aseqdip.case import Case
from aseqdip.config import Config
from aseqdip.engine import Engine
from aseqdip.errors import UserError
from aseqdip.files import check_writable, claimed
from aseqdip.identity import RESULTS, digest
from aseqdip.methods.base import Iterate, Method, Shared, State
from aseqdip.networks.blocks import initialise
from aseqdip.operators.identity import Identity
from aseqdip.parts import NoOptions
from aseqdip.problem import Problem, generator
from aseqdip.records import Record
from aseqdip.run.interrupt import Interrupt
from aseqdip.run.reconstruction import Reconstruction
from aseqdip.run.runner import Summary, command_start
from aseqdip.run.scores import NonFiniteError
from aseqdip.run.trackers import ProgressBar
from aseqdip.studies.fig6_report import describe, draw, summarise
from aseqdip.studies.fig6_theory import TAPS, Dynamics, kernels

log = logging.getLogger(__name__)

SIZE, PERIODS, LAYERS = 100, 2, 5
INPUTS = ("signal x", "measurement y", "noise z")
FITTED = 0.01  # of the noise's energy: what is left of ||f - y||^2 once y counts as learned
PAPER = {"lr": 5e-4, "network.width": 64, "network.init": "he"}
LOSS = "mean of squares; half their sum (Theorem A.1) is the same at 50 times the lr, where weights by He diverge"


def run(cfg: Config) -> Summary:
    """The study with each seed of a config; finished ones are skipped, unfinished continued. Raises UserError."""
    check_writable(Path(cfg.outputs))
    engine = Engine(cfg.device, "fp32")
    summary = Summary(Path(cfg.outputs) / cfg.study)
    deadline = None if cfg.budget_minutes is None else command_start() + 60 * cfg.budget_minutes
    with engine.current(), Interrupt(deadline) as interrupt:
        for seed in cfg.seeds or [cfg.seed]:
            one, name = replace(cfg, seed=seed, seeds=None), f"seed {seed}"
            folder = summary.folder / digest(identity(one))[:8]
            log.info("%s on %s, preset=%s, %s -> %s", cfg.study, engine.device, cfg.preset, name, folder)
            with claimed(folder) as free:
                if records.finished(folder) and not cfg.redo:
                    summary.skipped.append(name)
                elif not free:
                    log.info("%s: another process is at work on it.", name)
                    summary.elsewhere.append(name)
                elif not interrupt.due:
                    try:
                        done = Study(one, engine, folder).run(interrupt)
                    except (UserError, OSError, RuntimeError) as error:  # a full disk, say
                        summary.failed[name] = str(error)
                        log.error("%s failed: %s", name, error)
                    else:
                        summary.records += [Record(image=name, task=cfg.study, setting="", method="descent")] * done
    summary.interrupted, summary.late = interrupt.signal, interrupt.late
    return summary


def identity(cfg: Config) -> dict[str, Any]:
    """The knobs that can change the result, by name."""
    network = {"network.width": cfg.network.width, "network.init": cfg.network.init}
    return {"study": cfg.study, "steps": cfg.steps, "lr": cfg.lr, **network, "seed": cfg.seed}


def signals(seed: int) -> Tensor:
    """x, y = x + n and z, the last two with noise N(0, 1); float64, shape (3, n).

    Both ends of the sinusoid are sampled, so that a period is not a whole number of samples: of samples whose
    surroundings are the same, the network with input x can only fit the mean, however long it is trained.
    """
    x = torch.sin(2 * math.pi * PERIODS * torch.linspace(0, 1, SIZE, dtype=torch.float64))
    n, z = (torch.randn(SIZE, generator=generator(seed, "fig6", what)).double() for what in ("noise", "input"))
    return torch.stack([x, x + n, z])


def initial_weights(shared: Shared, seed: int) -> list[Tensor]:
    """Weights (out, in, taps) of the layers, then their biases (out,); float64."""
    channels = [1, *[shared.network.width] * (LAYERS - 1), 1]
    with torch.device("meta"):  # drawn below, from a generator of our own
        network = nn.ModuleList(nn.Conv1d(a, b, TAPS) for a, b in pairwise(channels))
    network = network.to_empty(device="cpu")
    initialise(network, shared.network.init, generator(seed, "fig6", "network"))
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


@dataclass(kw_only=True)
class DescentState(State):
    """The three networks, and the errors of all steps so far, (steps, 2, 3)."""

    networks: Networks
    curve: Tensor = field(default_factory=lambda: torch.empty(0))

    def state_dict(self) -> dict[str, Any]:
        weights = [w.detach() for w in self.networks.weights]
        return {**super().state_dict(), "weights": weights, "curve": self.curve[: self.step].clone()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.networks.weights, saved["weights"])
        super().load_state_dict(saved)
        self.curve[: self.step] = saved["curve"]


class Descent(Method[DescentState]):
    """Plain gradient descent on the three networks at once; an iterate's image is the table of their errors.

    Iterate 1 is of the initial weights, so that n updates make n + 1 iterates.
    """

    name = "descent"
    title = "Gradient descent"

    def start(self, problem: Problem) -> DescentState:
        # double precision: late updates are below the rounding of single-precision weights
        weights = [w.to(problem.y.device) for w in initial_weights(self.shared, problem.seed)]
        curve = torch.full((self.steps, 2, 3), math.nan, dtype=torch.float64, device=problem.y.device)
        return DescentState(networks=Networks(problem.y, weights, self.shared.lr), curve=curve)

    def iterates(self, problem: Problem, state: DescentState) -> Iterator[Iterate]:
        advance = self.engine.repeat(state.networks.step)
        for step in range(state.step + 1, self.steps + 1):
            errors = state.curve[step - 1] = advance()
            state.step = step
            yield Iterate(step, errors[None, None], {"loss": errors[1].sum()})


class Study:
    """One seed of the study, in its folder."""

    def __init__(self, cfg: Config, engine: Engine, folder: Path) -> None:
        self.cfg, self.engine, self.folder = cfg, engine, folder
        self.signals = signals(cfg.seed)
        shared = Shared(cfg.steps + 1, cfg.lr, "squared", cfg.network)
        problem = Problem(self.signals, Identity(), self.signals, cfg.study, cfg.seed)
        method = Descent(NoOptions(), shared, engine, signed=True)
        facts = {"settings": digest(identity(cfg)), "version of results": RESULTS}
        case = Case(problem, None, bounded=False).to(engine.device)
        self.descent = Reconstruction(case, method, folder=folder, facts=facts, minutes=cfg.checkpoint_minutes)

    def run(self, interrupt: Interrupt) -> bool:
        """Whether it is finished; if interrupted, a checkpoint is there. Raises UserError where it diverges."""
        bar = ProgressBar(self.cfg.study, self.cfg.steps + 1)
        try:
            done = self.descent.run([bar], interrupt)
        except NonFiniteError as error:
            raise UserError(
                f"Gradient descent diverged ({error}): expected a finite error. Take a lower lr "
                f"(found {self.cfg.lr:g}), or weights that start smaller (network.init=default)."
            ) from error
        finally:
            bar.finish(None, None)
        if done:
            self._write()
        else:
            log.info(
                "Stopped after %d of %d steps; the same command continues.", self.descent.state.step, self.cfg.steps
            )
        return done

    def _write(self) -> None:
        """Curves, figure, and last of all what the study found."""
        cfg, curve = self.cfg, self.descent.state.curve.cpu()
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
        if self.descent.checkpoint is not None:
            self.descent.checkpoint.clear()
        describe(record)

    def _record(self, noise: float, measured: list[dict[str, Any]], theory: list[int | None]) -> dict[str, Any]:
        cfg, device = self.cfg, self.engine.device
        x, _, z = (m["fitted_at"] for m in measured)
        changed = {name: value for name, value in identity(cfg).items() if PAPER.get(name, value) != value}
        return {
            "study": cfg.study,
            "preset": cfg.preset,
            "deviations_from_paper": {"loss": LOSS, **changed},
            "noise_level": noise,
            "inputs": {name: {**m, "theory_fitted_at": t} for name, m, t in zip(INPUTS, measured, theory, strict=True)},
            "ratio": z and (x or cfg.steps) / z,
            "ratio_is_lower_bound": x is None,
            "theory_ratio": theory[0] and theory[2] and theory[0] / theory[2],
            "steps": cfg.steps,
            "seconds": round(self.descent.clock.seconds["method"], 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": "fp64",
            "seed": cfg.seed,
            "versions": records.environment(),
            "commit": records.commit(),
            "settings": identity(cfg),
        }


def predict(cfg: Config, signals: Tensor) -> list[Dynamics]:
    """Theorem A.1 for each input, with the kernel of a network of this width."""
    rate = 2 * cfg.lr / SIZE  # of the mean of squares
    width, init = cfg.network.width, cfg.network.init
    return [Dynamics(z, signals[1], *kernels(z, width, LAYERS, init), rate) for z in signals]
