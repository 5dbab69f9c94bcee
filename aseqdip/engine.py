"""How a gradient step is executed: device, precision of the network, memory layout, optimiser."""

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from aseqdip.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: what a method's objective returns: the network's image, and the terms of the loss ("loss" is their sum)
Objective = Callable[[], tuple[Tensor, dict[str, Tensor]]]


def pick_device(name: str) -> torch.device:
    """The device a config names; auto is CUDA where there is one. UserError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is not a device: use auto, cpu, cuda or cuda:0 ...") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: PyTorch sees {torch.cuda.device_count()} CUDA devices here. Use device=cpu, or install a "
            "CUDA build of PyTorch."
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: use auto, cpu or cuda.")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """bf16 or fp32; auto is bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # without the instruction, bf16 convolutions on a CPU are emulated and slower than fp32
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def keep_freed_memory(keep: bool = True) -> bool:
    """Have the C library keep what is freed: else each step's large tensors are given back and paged in anew.

    Took a step of the skip network at 512 x 512 from 2.0 to 1.3 s. Only glibc knows how; returns False elsewhere.
    ``keep=False`` goes back to about what a process begins with.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    mmap_max, trim_threshold = -4, -1  # from malloc.h
    return bool(mallopt(mmap_max, 0 if keep else 65536) and mallopt(trim_threshold, 2**31 - 1 if keep else 2**17))


@dataclass
class Cost:
    """What one step costs: network passes forward, floating-point operations of one such pass, and of the whole step.

    Convolutions and matrix products count, as in PyTorch's own counter; Fourier transforms do not.
    """

    passes: int = 0
    pass_flops: int = 0
    step_flops: int = 0


class _FlopCounter(TorchDispatchMode):
    """PyTorch's formulas, without FlopCounterMode's module hooks: those fail inside ``torch.autograd.grad``."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


class Executed(nn.Module):
    """A network in the engine's precision and memory layout; image in, fp32 image out."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network = network
        self.bf16 = precision == "bf16"
        self.cost: Cost | None = None
        self.counter: _FlopCounter | None = None

    def forward(self, image: Tensor) -> Tensor:
        before = 0 if self.counter is None else self.counter.total
        result = self._forward(image)
        if self.counter is not None and self.cost is not None:
            self.cost.passes += 1
            self.cost.pass_flops = self.counter.total - before
        return result

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Find out the cost of what happens inside, once; it computes the same."""
        if self.cost is not None:
            yield
            return
        self.cost = Cost()
        with _FlopCounter() as self.counter:  # type: ignore[no-untyped-call]
            yield
        self.cost.step_flops = self.counter.total
        self.counter = None

    def _forward(self, image: Tensor) -> Tensor:
        context = torch.autocast(image.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with context:
            result: Tensor = self.network(image.contiguous(memory_format=torch.channels_last))
        return result.float().contiguous()


class Graph(Generic[T]):
    """A function without arguments, recorded into a CUDA graph after a few calls and replayed from then on.

    What it returns are then the same tensors each time, overwritten by the next call. A function that cannot be recorded
    goes on being called as it is; one line of the log says why. Belongs to the thread's current device.

    Args:
        function: reads and writes tensors that stay where they are; never waits for the device.
        generators: the random streams it draws from.
    """

    warm_up = 3  # calls that find out algorithms, plan transforms and allocate optimiser states
    #: also while warming up: cuDNN waits for the whole device when it compares algorithms, which breaks a recording elsewhere
    _one_at_a_time = threading.Lock()

    def __init__(self, function: Callable[[], T], generators: Sequence[torch.Generator]) -> None:
        self.function = function
        self.generators = generators
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: T

    def __call__(self) -> T:
        self.calls += 1
        if self.calls <= self.warm_up + 1:
            with self._one_at_a_time:
                if self.calls <= self.warm_up:
                    return self.function()
                self._record()
        if self.graph is None:
            return self.function()
        self.graph.replay()
        return self.result

    def _record(self) -> None:
        before = torch.cuda.current_stream() if torch.cuda.is_available() else None
        try:
            graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                graph.register_generator_state(generator)
            stream = torch.cuda.Stream()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.result = self.function()
        except Exception as error:  # whatever cannot be captured still runs kernel by kernel
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.info("No CUDA graph, so steps run kernel by kernel: %s", reason)
            if before is not None:
                torch.cuda.set_stream(before)  # a recording that breaks at its end leaves its own behind
                torch.cuda.synchronize()
        else:
            self.graph = graph


class Engine:
    """Executes a method's network and steps on one device.

    Args:
        device: "auto", "cpu", "cuda" ...
        precision: "auto", "fp32" or "bf16": of the network's arithmetic; weights, losses and the output layer stay fp32.
    """

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.threads = torch.get_num_threads()
        if self.device.type == "cpu":
            keep_freed_memory()
        torch.backends.cudnn.benchmark = True  # one shape, thousands of times: let cuDNN find its best
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32: the output layer and SSIM are convolutions too

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """Make a CUDA device the thread's current one: streams, events and graphs belong to that."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def share(self, workers: int) -> None:
        """Give the calling thread its share of the device: 1/workers of the cores, or a CUDA stream of its own."""
        if self.device.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream(self.device))
        else:
            torch.set_num_threads(max(1, self.threads // workers))  # of this Python thread alone

    def workers(self, wanted: str, images: int) -> int:
        """How many images to reconstruct at a time; auto: up to four, and on a CPU no more than there are cores."""
        if wanted != "auto":
            return min(int(wanted), images)
        return min(4, images, self.threads if self.device.type == "cpu" else images)

    def prepare(self, network: nn.Module) -> Executed:
        """The network on the device, ready to be called on fp32 images."""
        network = network.to(self.device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Executed(network, self.precision).train()

    def adam(self, groups: list[dict[str, Any]], rectified: bool = False) -> torch.optim.Optimizer:
        """Adam, or RAdam, on groups of parameters, each with its "lr"; moments (0.9, 0.999), eps 1e-8."""
        cuda = self.device.type == "cuda"
        if cuda:  # a rate in a tensor can change after the step was recorded
            groups = [{**group, "lr": torch.tensor(group["lr"], device=self.device)} for group in groups]
        if rectified:
            return torch.optim.RAdam(groups, capturable=cuda)
        return torch.optim.Adam(groups, fused=True, capturable=cuda)  # one kernel

    def set_rate(self, optimiser: torch.optim.Optimizer, lr: float) -> None:
        """The learning rate of the next steps, for all groups."""
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def repeat(self, function: Callable[[], T], *generators: torch.Generator) -> Callable[[], T]:
        """The function in the fastest form for many calls: itself on a CPU, a :class:`Graph` on CUDA."""
        return Graph(function, generators) if self.device.type == "cuda" else function

    def generator(self, seed: int) -> torch.Generator:
        """A random stream on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def descend(
        self,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        network: Executed,
        rng: torch.Generator,
    ) -> Objective:
        """A function that takes one optimiser step on ``objective`` and returns what it was before the step.

        The first step also finds out ``network.cost``. ``rng`` is the stream that the objective may draw from.
        """

        def step() -> tuple[Tensor, dict[str, Tensor]]:
            optimiser.zero_grad(set_to_none=True)
            with network.counting():
                image, terms = objective()
                terms["loss"].backward()
            optimiser.step()
            return image.detach(), {name: term.detach() for name, term in terms.items()}

        return self.repeat(step, rng)
