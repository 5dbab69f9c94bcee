"""How a gradient step is executed: device, precision of the network, memory layout, optimiser."""

import contextlib
import copy
import ctypes
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from aseqdip.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

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
    if device.type == "mps" and torch.backends.mps.is_available():
        log.warning("device=mps: nobody has tested this; compare a result with one of device=cpu.")
    elif device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported here: use auto, cpu, cuda, or on a Mac mps.")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """bf16 or fp32; auto is bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):  # it is asked of the current one
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu":
        return "fp32"
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


def full_fp32() -> None:
    """Have fp32 mean fp32 (the output layer and SSIM are convolutions too), whatever was chosen elsewhere."""
    backends = torch.backends
    backends.cudnn.allow_tf32 = False
    backends.cuda.matmul.allow_tf32 = False
    # PyTorch 2.9 and newer: without a word of their own, these follow torch.backends.fp32_precision
    for library, kinds in (
        (backends.cudnn, ("conv", "rnn")),
        (backends.cuda, ("matmul",)),
        (backends.mkldnn, ("conv", "matmul")),
    ):
        for kind in kinds:
            if hasattr(part := getattr(library, kind, None), "fp32_precision"):
                part.fp32_precision = "ieee"  # type: ignore[union-attr]


def can_record(device: torch.device) -> bool:
    """Whether steps on this device can be recorded and replayed."""
    return device.type == "cuda"


_worker = threading.local()
_strangers = itertools.count(-1, -1)


def _number() -> int:
    """A worker's, 0 of the main thread, and one of its own of each thread that somebody else began."""
    if not hasattr(_worker, "number"):
        _worker.number = 0 if threading.current_thread() is threading.main_thread() else next(_strangers)
    return int(_worker.number)


@functools.cache
def _threads(workers: int) -> ThreadPoolExecutor:
    """Threads that outlive a job: what cuDNN's search for algorithms finds holds for the thread that searched."""
    numbers = itertools.count(1)

    def begin() -> None:
        _worker.number = next(numbers)

    return ThreadPoolExecutor(workers, "aseqdip", begin)


@functools.cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """The CUDA stream of a thread, taken once: PyTorch deals out the same 32 in turn."""
    return torch.cuda.Stream(device)


def _own_stream() -> torch.cuda.Stream:
    """The thread's current stream, or a fixed one in place of the default stream, where nothing can be recorded."""
    current = torch.cuda.current_stream()
    return _stream(current.device, _number()) if current == torch.cuda.default_stream() else current


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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else its first call imports PyTorch's compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


class Executed(nn.Module):
    """A network in the engine's precision and memory layout; image in, fp32 image out."""

    def __init__(self, network: nn.Module, precision: str, layout: torch.memory_format = torch.channels_last) -> None:
        super().__init__()
        self.network = network
        self.bf16 = precision == "bf16"
        self.layout = layout
        self.cost: Cost | None = None
        self.counter: _FlopCounter | None = None

    def forward(self, image: Tensor, *others: Tensor) -> Tensor:
        before = 0 if self.counter is None else self.counter.total
        result = self._forward(image, *others)
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

    def _forward(self, image: Tensor, *others: Tensor) -> Tensor:
        context = torch.autocast(image.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with context:
            result: Tensor = self.network(image.contiguous(memory_format=self.layout), *others)
        return result.float().contiguous()


class Graph(Generic[T]):
    """A function without arguments, recorded into a CUDA graph after a few calls and replayed from then on.

    What it returns are then the same tensors each time, overwritten by the next call. A function that cannot be
    recorded goes on being called as it is; a warning says why. Belongs to the thread's current device.

    Args:
        function: reads and writes tensors that stay where they are; never waits for the device.
        generators: the random streams it draws from.
        failures: takes the reason why it could not be recorded.
    """

    warm_up = 3  # calls that find out algorithms, plan transforms and allocate optimiser states
    #: also while warming up: cuDNN waits for the whole device when it compares algorithms, which breaks a recording
    #: elsewhere
    _one_at_a_time = threading.Lock()
    #: the allocator goes on asking a broken recording whether memory is wanted for it
    _broken: ClassVar[list[Any]] = []

    def __init__(
        self, function: Callable[[], T], generators: Sequence[torch.Generator], failures: list[str] | None = None
    ) -> None:
        self.function = function
        self.generators = generators
        self.failures = [] if failures is None else failures
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
        graph = before = None
        try:
            before = torch.cuda.current_stream()
            graph = torch.cuda.CUDAGraph()
            for generator in self.generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph, stream=_own_stream(), capture_error_mode="thread_local"):
                self.result = self.function()
        except Exception as error:  # whatever cannot be captured still runs kernel by kernel
            while error.__context__ is not None:  # the end of a broken recording raises too, and says less
                error = error.__context__  # type: ignore[assignment]
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning("No CUDA graph, so steps run kernel by kernel, several times as slowly: %s", reason)
            self.failures.append(reason)
            if before is not None:
                self._recover(before, graph)
        else:
            self.graph = graph

    def _recover(self, before: torch.cuda.Stream, graph: torch.cuda.CUDAGraph | None) -> None:
        """Back to where a recording began that broke."""
        self._broken.append(graph)
        torch.cuda.set_stream(before)
        for generator in self.generators:  # still waiting for the recording's end, it would refuse every draw
            generator.graphsafe_set_state(generator.clone_state())
        torch.cuda.synchronize()


class Pace:
    """Keeps the host at most some steps ahead of a CUDA device: a queue of hundreds would delay a stop by seconds."""

    ahead = 16

    def __init__(self) -> None:
        self.events = [torch.cuda.Event(blocking=True) for _ in range(self.ahead)]  # no busy waiting
        self.steps = 0

    def __call__(self) -> None:
        """A step was queued: wait for the one :attr:`ahead` before it."""
        event = self.events[self.steps % self.ahead]
        event.synchronize()
        event.record()
        self.steps += 1


def _bare(function: Callable[..., Any]) -> Any:
    """Without what PyTorch wraps around it: calls of its compiler, whose import takes a second or two."""
    return getattr(function, "__wrapped__", function)


class _Eager(torch.optim.Optimizer):
    add_param_group = _bare(torch.optim.Optimizer.add_param_group)
    zero_grad = _bare(torch.optim.Optimizer.zero_grad)
    state_dict = _bare(torch.optim.Optimizer.state_dict)
    load_state_dict = _bare(torch.optim.Optimizer.load_state_dict)


class Adam(_Eager, torch.optim.Adam):
    """PyTorch's, never compiled."""

    step = torch.no_grad()(_bare(torch.optim.Adam.step))


class RAdam(_Eager, torch.optim.RAdam):
    """PyTorch's, never compiled."""

    step = torch.no_grad()(_bare(torch.optim.RAdam.step))


class Engine:
    """Executes a method's network and steps on one device.

    Args:
        device: "auto", "cpu", "cuda" ...
        precision: "auto", "fp32" or "bf16": of the network's arithmetic; weights, losses and the output layer stay
            fp32.

    Attributes:
        records: whether repeated functions are recorded into CUDA graphs.
        layout: of the network's weights and features in memory.
        failures: why functions of this image could not be recorded.
    """

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.threads = torch.get_num_threads()
        if self.device.type == "cpu":
            keep_freed_memory()
        self.records = can_record(self.device)
        # in fp32 without TF32 cuDNN's fast algorithms are those of the plain layout
        plain = self.device.type == "cuda" and self.precision == "fp32"
        self.layout = torch.contiguous_format if plain else torch.channels_last
        self.failures: list[str] = []
        torch.backends.cudnn.benchmark = True  # one shape, thousands of times: let cuDNN find its best
        full_fp32()

    def fresh(self) -> "Engine":
        """The same engine for another image, which has failures of its own."""
        engine = copy.copy(self)
        engine.failures = []
        return engine

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make a CUDA device the thread's current one, and work on a stream of it that can be recorded."""
        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.device(self.device):
            before, own = torch.cuda.current_stream(), _own_stream()
            own.wait_stream(before)
            with torch.cuda.stream(own):
                yield
            before.wait_stream(own)

    def share(self, workers: int) -> None:
        """Give the calling thread its share of the device: 1/workers of the cores, or a CUDA stream of its own."""
        if self.device.type == "cuda":
            torch.cuda.set_stream(_stream(self.device, _number()))
        else:
            torch.set_num_threads(max(1, self.threads // workers))  # of this Python thread alone

    def workers(self, wanted: str, images: int) -> int:
        """How many images to reconstruct at a time; auto: up to four, and on a CPU no more than there are cores."""
        cpu = self.device.type == "cpu"
        if wanted != "auto":
            return min(int(wanted), images, images if cpu else 31)  # PyTorch has 32 CUDA streams
        return min(4, images, self.threads if cpu else images)

    def each(self, work: Callable[[Item], None], items: Sequence[Item], workers: int) -> None:
        """``work`` on every item, ``workers`` at a time, each on its share of the device.

        PyTorch computes without Python's lock: threads share a device as well as processes, with less memory.
        """

        def on_its_share(item: Item) -> None:
            self.share(workers)
            work(item)

        if workers <= 1:
            for item in items:
                work(item)
            return
        begun = [_threads(workers).submit(on_its_share, item) for item in items]
        try:
            for future in begun:
                future.result()
        finally:  # an error or an interruption here: begin nothing more, and wait for what is under way
            for future in begun:
                future.cancel()
            wait(begun)

    def prepare(self, network: nn.Module) -> Executed:
        """The network on the device, ready to be called on fp32 images."""
        network = network.to(self.device)
        network = network.to(memory_format=self.layout)  # type: ignore[call-overload]
        return Executed(network, self.precision, self.layout).train()

    def adam(self, groups: list[dict[str, Any]], rectified: bool = False) -> torch.optim.Optimizer:
        """Adam, or RAdam, on groups of parameters, each with its "lr"; moments (0.9, 0.999), eps 1e-8."""
        if self.records:  # a rate in a tensor can change after the step was recorded
            groups = [{**group, "lr": torch.tensor(group["lr"], device=self.device)} for group in groups]
        if rectified:
            return RAdam(groups, capturable=self.records)
        return Adam(groups, fused=True, capturable=self.records)  # one kernel

    def set_rate(self, optimiser: torch.optim.Optimizer, lr: float) -> None:
        """The learning rate of the next steps, for all groups."""
        for group in optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def repeat(self, function: Callable[[], T], *generators: torch.Generator) -> Callable[[], T]:
        """The function in the fastest form for many calls: itself on a CPU, a :class:`Graph` on CUDA."""
        return Graph(function, generators, self.failures) if self.records else function

    def pace(self) -> Callable[[], None]:
        """To be called after each step, so that the host does not run far ahead of the device."""
        return Pace() if self.device.type == "cuda" else lambda: None

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
