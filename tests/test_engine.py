"""The engine: recordings and what becomes of broken ones, streams, rates, precision, shares of the device."""

import logging
import threading
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from conftest import load_script

from aseqdip import engine
from aseqdip.engine import Engine, Graph, Pace
from aseqdip.operators import ct

emulation = load_script("emulation")


@pytest.fixture
def emulated() -> Iterator[None]:
    with emulation.emulated():
        yield


@pytest.fixture
def cuda(emulated: None) -> Engine:
    """An engine that takes the CUDA branches where they are about streams."""
    made = Engine("cpu", "fp32")
    made.device = torch.device("cuda:0")
    return made


# --- recordings ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_recorded_still_runs(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("recorded there: see test_gpu.py")
    calls: list[int] = []
    failures: list[str] = []
    graph = Graph(lambda: calls.append(1) or len(calls), (), failures)
    with caplog.at_level(logging.WARNING):
        assert [graph() for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert caplog.text.count("No CUDA graph") == len(failures) == 1


def test_a_broken_recording_gives_its_random_streams_back(emulated: None, caplog: pytest.LogCaptureFixture) -> None:
    """Else every later draw fails; and the reason given is the first error, not the one at the recording's end."""
    made = Engine("cpu", "fp32")
    rng, twin = made.generator(3), made.generator(3)
    run = made.repeat(lambda: float(torch.rand((), generator=rng)), rng)
    with emulation.Draws():
        found = [run() for _ in range(6)]
    assert found == [float(torch.rand((), generator=twin)) for _ in range(6)]
    (reason,) = made.failures
    assert "_local_scalar_dense" in reason
    assert reason in caplog.records[0].getMessage()
    assert caplog.records[0].levelname == "WARNING"


def test_a_broken_recording_leaves_the_stream_it_began_on(emulated: None) -> None:
    graph = Graph(lambda: float(torch.ones(())), ())
    for _ in range(6):
        graph()
    assert torch.cuda.current_stream() is torch.cuda.default_stream()
    assert graph._broken[-1] is not None, "the allocator still refers to it"


def test_a_recording_is_on_its_own_workers_stream(cuda: Engine) -> None:
    """PyTorch deals out 32 streams in turn: with one for each recording, the 29th would get a live worker's."""
    used: list[tuple[object, object]] = []
    real = torch.cuda.graph

    def graph(recording: object, stream: object, **options: str) -> object:
        assert options == {"capture_error_mode": "thread_local"}, "another thread goes on meanwhile"
        assert Graph._one_at_a_time.locked()
        used.append((threading.get_ident(), stream))
        return real(recording, stream=stream, **options)

    together = threading.Barrier(4)

    def image(number: int) -> None:
        together.wait(timeout=60)  # all four workers have their streams
        for _ in range(3):
            recording = Graph(lambda: torch.ones(2) + number, ())
            for _ in range(5):
                recording()
            assert recording.graph is not None

    with mock.patch.object(torch.cuda, "graph", graph):
        cuda.each(image, range(16), 4)
    assert len(used) == 48
    owners: dict[object, set[object]] = {}
    for thread, stream in used:
        owners.setdefault(stream, set()).add(thread)
    assert len(owners) == 4
    assert all(len(threads) == 1 for threads in owners.values())


def test_the_main_thread_records_on_one_fixed_stream(emulated: None) -> None:
    with mock.patch.object(torch.cuda, "graph", wraps=torch.cuda.graph) as graph:
        for _ in range(40):
            recording = Graph(lambda: torch.ones(2), ())
            for _ in range(4):
                recording()
    used = [call.kwargs["stream"] for call in graph.call_args_list]
    assert len(used) == 40
    assert len(set(used)) == 1
    assert used[0] is not torch.cuda.default_stream()


def test_threads_of_somebody_else_have_streams_of_their_own(emulated: None) -> None:
    used: list[object] = []
    threads = [threading.Thread(target=lambda: used.append(engine._own_stream())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*used, engine._own_stream()}) == 4


def test_work_happens_on_a_stream_that_can_be_recorded(cuda: Engine) -> None:
    with mock.patch.object(torch.cuda, "device", lambda device: mock.MagicMock()), cuda.current():
        assert torch.cuda.current_stream() is not torch.cuda.default_stream()
    assert torch.cuda.current_stream() is torch.cuda.default_stream()


def test_threads_outlive_a_job(cuda: Engine) -> None:
    """cuDNN's search for algorithms holds for the thread that searched."""
    seen: list[set[threading.Thread]] = []  # the objects: numbers are used again
    for _ in range(2):
        seen.append(set())
        together = threading.Barrier(3)

        def image(number: int, together: threading.Barrier = together) -> None:
            together.wait(timeout=60)
            seen[-1].add(threading.current_thread())

        cuda.each(image, range(3), 3)
    assert len(seen[0]) == 3
    assert seen[0] == seen[1]


def test_an_error_of_one_image_begins_no_other() -> None:
    done = []

    def image(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        threading.Event().wait(0.05)
        done.append(number)

    with pytest.raises(KeyboardInterrupt):
        Engine("cpu", "fp32").each(image, range(100), 2)
    before = len(done)
    assert before < 50
    threading.Event().wait(0.2)
    assert len(done) == before, "what was under way has ended"


# --- emulation itself: it must see what a GPU would do otherwise ------------------------------------------------------


def replays(function: object, times: int = 6) -> list[float]:
    graph = Graph(function, ())
    values = [float(graph()) for _ in range(times)]
    assert graph.graph is not None
    return values


def test_a_python_number_stays_as_it_was_recorded(emulated: None) -> None:
    numbers = iter(range(10))
    assert replays(lambda: torch.zeros(()) + next(numbers)) == [0, 1, 2, 3, 3, 3]


def test_recording_changes_nothing_and_replays_do(emulated: None) -> None:
    total = torch.zeros(())
    assert replays(lambda: total.add_(1)) == [1, 2, 3, 4, 5, 6]


def test_state_in_a_recordings_own_memory_is_lost(emulated: None) -> None:
    kept: list[torch.Tensor] = []

    def count() -> torch.Tensor:
        kept.append((kept[-1] if kept else torch.zeros(())) + 1)
        return kept[-1]

    assert replays(count)[:5] != [1, 2, 3, 4, 5]


def test_a_replay_overwrites_what_the_last_one_gave(emulated: None) -> None:
    total = torch.zeros(())
    graph = Graph(lambda: total.add_(1) + 0, ())
    first, second = [graph() for _ in range(6)][-2:]
    assert first is second
    assert float(first) == 6


# --- precision, layout, pace -----------------------------------------------------------------------------------------


def test_fp32_is_fp32_whatever_was_chosen_for_the_process() -> None:
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("PyTorch before 2.9 has one switch")
    before = backends.fp32_precision
    backends.fp32_precision = "tf32"
    try:
        Engine("cpu", "fp32")
        kinds = backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul
        assert [kind.fp32_precision for kind in kinds] == ["ieee"] * 4
        assert not backends.cudnn.allow_tf32  # the older switch agrees, else PyTorch raises where it is read
        assert not backends.cuda.matmul.allow_tf32
    finally:
        backends.fp32_precision = before


@pytest.mark.parametrize(
    ("device", "precision", "layout"),
    [
        ("cpu", "fp32", torch.channels_last),
        ("cpu", "bf16", torch.channels_last),
        ("cuda", "bf16", torch.channels_last),
        ("cuda", "fp32", torch.contiguous_format),
    ],
)
def test_layout(device: str, precision: str, layout: torch.memory_format) -> None:
    """cuDNN's fp32 algorithms without TF32 are those of the plain layout."""
    with mock.patch.object(engine, "pick_device", torch.device):
        made = Engine(device, precision)
    assert made.layout is layout
    made.device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        network = made.prepare(torch.nn.Conv2d(3, 4, 3))
    assert network.network.weight.is_contiguous(memory_format=layout)
    seen = []
    network.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.ones(1, 3, 8, 8))
    assert seen[0].is_contiguous(memory_format=layout)


def test_the_host_stays_close_to_the_device() -> None:
    """A device that finishes a step only when it is waited for: the host is never more than ``ahead`` steps
    before it.
    """
    queued = finished = 0

    class Event:
        def __init__(self, blocking: bool = False) -> None:
            assert blocking, "a core would be busy with waiting"
            self.at = 0

        def record(self) -> None:
            self.at = queued

        def synchronize(self) -> None:
            nonlocal finished
            finished = max(finished, self.at)

    with mock.patch.object(torch.cuda, "Event", Event):
        pace = Pace()
        for _ in range(100):
            queued += 1
            pace()
            assert queued - finished <= Pace.ahead
    assert finished > 0


def test_ct_matrices_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case is made on the CPU and moved to the GPU: the second device needs no matrices of its own."""
    ct._matrices.cache_clear()
    ct._binning.cache_clear()
    monkeypatch.setattr(ct, "_to_torch", lambda matrix, device: matrix)
    for device in ("cpu", "cuda"):
        ct._binning(16, (0.0, 1.0, 2.0), torch.device(device))
    ct._binning.cache_clear()
    assert ct._matrices.cache_info().misses == 1


# --- rates and shares ------------------------------------------------------------------------------------------------


def test_a_cpu_repeats_the_function_itself() -> None:
    def function() -> int:
        return 3

    assert Engine("cpu", "fp32").repeat(function) is function


def test_rates_in_numbers_and_in_tensors() -> None:
    engine = Engine("cpu", "fp32")
    weight = torch.nn.Parameter(torch.ones(2))
    plain = engine.adam([{"params": [weight], "lr": 0.1}])
    engine.set_rate(plain, 0.05)
    assert plain.param_groups[0]["lr"] == 0.05
    held = torch.tensor(0.1)
    recorded = torch.optim.Adam([{"params": [weight], "lr": held}])
    engine.set_rate(recorded, 0.05)
    assert held.item() == pytest.approx(0.05)
    assert recorded.param_groups[0]["lr"] is held, "in place: a recorded step reads the same tensor"


@pytest.mark.parametrize("rectified", [False, True])
def test_a_recorded_step_follows_the_rate(emulated: None, rectified: bool) -> None:
    """Adam and RAdam read the rate, and count their steps, on the device."""
    weights = []
    for records in (True, False):
        made = Engine("cpu", "fp32")
        made.records = records
        weight = torch.nn.Parameter(torch.linspace(1, 2, 5))
        optimiser = made.adam([{"params": [weight], "lr": 0.1}], rectified)

        def step(weight: torch.nn.Parameter = weight, optimiser: torch.optim.Optimizer = optimiser) -> torch.Tensor:
            optimiser.zero_grad(set_to_none=True)
            weight.square().sum().backward()
            optimiser.step()
            return weight.detach()

        run, seen = made.repeat(step), []
        for number in range(16):
            made.set_rate(optimiser, 0.1 / (1 + number))
            seen.append(run().clone())
        weights.append(torch.stack(seen))
        assert not made.failures
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_images_at_a_time() -> None:
    engine = Engine("cpu", "fp32")
    assert engine.workers("1", 10) == 1
    assert engine.workers("3", 10) == 3
    assert engine.workers("8", 2) == 2
    engine.threads = 2
    assert engine.workers("auto", 10) == 2
    engine.threads = 64
    assert engine.workers("auto", 10) == 4
    engine.device = torch.device("cuda")
    assert engine.workers("64", 64) == 31, "a CUDA stream for each"
