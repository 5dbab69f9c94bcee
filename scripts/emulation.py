"""CUDA graphs on a CPU: the engine records into these where there is no GPU, and a recording fails where a GPU's would.

A recording runs nothing: what it wrote is put back at its end. A replay makes the same calls of PyTorch's dispatcher on
the same tensors, and no line of Python in between; before it, all memory of the recording is filled with NaN. So a
number that Python would change, a tensor at another address, state kept in the recording's own memory, and anything
read after the next replay all show. Streams are dealt out as PyTorch does, 32 in turn.
"""

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aseqdip import engine
from aseqdip.operators import ct

#: what waits for the device, or copies from the host's pageable memory
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "lift_fresh",
    "unique_dim",
    "_unique2",
}


def dense(values: Any) -> list[Tensor]:
    """The tensors with a storage of their own among arguments or results."""
    return [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.layout is torch.strided]


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def waits(func: Any, args: Any) -> bool:
    """Whether a GPU's host would wait at this call."""
    name = func._overloadpacket.__name__
    masks = name in ("index", "index_put", "index_put_") and any(t.dtype == torch.bool for t in dense(args[1]))
    return name in WAITS or masks


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU's host would wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            raise RuntimeError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


class Generator(torch.Generator):
    """A random stream as on a GPU: after a recording that broke, it waits for the end of that."""

    waiting: ClassVar[set[int | None]] = set()

    def clone_state(self) -> "Generator":
        return Generator().set_state(self.get_state())  # type: ignore[return-value]

    def graphsafe_set_state(self, state: torch.Generator) -> "Generator":
        self.waiting.discard(number(self))
        return self.set_state(state.get_state())  # type: ignore[return-value]


def number(generator: Any) -> int | None:
    """The same for all Python objects that stand for one random stream."""
    return None if generator is None else generator._cdata


class Draws(TorchDispatchMode):
    """Raises where a random stream is drawn from that still waits for the end of a recording."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if number((kwargs or {}).get("generator")) in Generator.waiting:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        return func(*args, **(kwargs or {}))


class Graph:
    """Stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.generators: list[Any] = []
        self.calls: list[tuple[Callable[[], Any], list[Tensor | None]]] = []
        self.memory: dict[int, Tensor] = {}

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    @torch.no_grad()
    def replay(self) -> None:
        self.poison()
        for call, kept in self.calls:
            for target, value in zip(kept, dense(call()), strict=True):
                if target is not None:
                    target.copy_(value)

    def poison(self) -> None:
        for tensor in self.memory.values():
            tensor.detach().fill_(torch.nan if tensor.is_floating_point() or tensor.is_complex() else 0)


class Tape(TorchDispatchMode):
    """Writes the dispatcher's calls down, and what was there before they wrote into memory from outside."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if waits(func, args):
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        if number(kwargs.get("generator")) not in (None, *map(number, self.graph.generators)):
            raise RuntimeError("a random stream is drawn from that is not registered with the graph")
        given = {address(t) for t in dense((args, kwargs))}
        if func._schema.is_mutable:
            self._keep(func._schema, args, kwargs)
        result = func(*args, **kwargs)
        made = [None if address(t) in given else t for t in dense(result)]
        self.graph.memory.update({address(t): t for t in made if t is not None})
        if func._schema.is_mutable or any(t is not None for t in made):  # else a view
            self.graph.calls.append((partial(func, *args, **kwargs), made))
        return result

    def _keep(self, schema: Any, args: Any, kwargs: Any) -> None:
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                for t in dense(value):
                    if address(t) not in self.graph.memory and address(t) not in self.before:
                        whole = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
                        self.before[address(t)] = whole, whole.clone()

    def undo(self) -> None:
        with torch.no_grad():
            for whole, values in self.before.values():
                whole.copy_(values)


class Stream:
    """Stands for ``torch.cuda.Stream``: one of 32."""

    count = itertools.count()
    pool: ClassVar[list["Stream"]] = []
    device = torch.device("cpu")

    def __new__(cls, device: Any = None) -> "Stream":
        if not cls.pool:
            cls.pool += [object.__new__(cls) for _ in range(32)]
        return cls.pool[next(cls.count) % 32]

    def wait_stream(self, other: "Stream") -> None:
        """All work is done at once."""


DEFAULT = object.__new__(Stream)
_here = threading.local()


def current_stream(device: Any = None) -> Stream:
    return getattr(_here, "stream", DEFAULT)


def set_stream(stream: Stream) -> None:
    _here.stream = stream


@contextlib.contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    before = current_stream()
    set_stream(stream)
    yield
    set_stream(before)


@contextlib.contextmanager
def record(graph: Graph, stream: Stream, capture_error_mode: str = "global") -> Iterator[None]:
    """Stands for ``torch.cuda.graph``; like it, a broken recording leaves its stream and its generators behind."""
    if stream is DEFAULT:
        raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
    before, states = current_stream(), [g.get_state() for g in graph.generators]
    set_stream(stream)
    tape = Tape(graph)
    try:
        with tape:
            yield
    except Exception:
        Generator.waiting.update(map(number, graph.generators))
        raise RuntimeError("operation failed due to a previous error during capture") from None
    finally:
        tape.undo()
        for generator, state in zip(graph.generators, states, strict=True):
            generator.set_state(state)
    graph.poison()
    set_stream(before)


def seeded(self: engine.Engine, seed: int) -> torch.Generator:
    return Generator().manual_seed(seed)


def binning(size: int, angles: tuple[float, ...], device: torch.device) -> Any:
    """CT as on a GPU: SciPy's products are none of the dispatcher's calls."""
    return tuple(partial(ct._torch_product, ct._to_torch(matrix, device)) for matrix in ct._matrices(size, angles))


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Everything inside runs on the CPU as if its steps were recorded on a GPU."""
    stand_ins: dict[Any, dict[str, Any]] = {
        torch.cuda: {
            **{"CUDAGraph": Graph, "graph": record, "Stream": Stream, "stream": on_stream, "set_stream": set_stream},
            **{"current_stream": current_stream, "default_stream": lambda device=None: DEFAULT},
            "synchronize": lambda device=None: None,
        },
        engine: {"can_record": lambda device: True},
        engine.Engine: {"generator": seeded},
        ct: {"_binning": binning},
        sys.modules["torch.optim.radam"]: {"_get_capturable_supported_devices": lambda: ["cpu"]},
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("aseqdip") and hasattr(module, "_disable_current_modes"):
            stand_ins.setdefault(module, {})["_disable_current_modes"] = contextlib.nullcontext
    with contextlib.ExitStack() as stack:
        for owner, names in stand_ins.items():
            stack.enter_context(mock.patch.multiple(owner, **names))
        engine._stream.cache_clear()
        yield
    engine._stream.cache_clear()
    set_stream(DEFAULT)
