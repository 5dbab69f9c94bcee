"""Signals, a command's word to its workers, exit statuses: with real processes, for signals are theirs."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aseqdip.run import interrupt
from aseqdip.run.interrupt import BAD_INPUT, DONE, FAILED, SIGNALLED, UNFINISHED, Command, Interrupt, end_job

ROOT = Path(__file__).parent.parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def script(text: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python process of this text."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_on_windows_nothing_is_sent_to_a_process_to_see_whether_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []  # os.kill(process, 0) is a Ctrl-C there
    monkeypatch.setattr(os, "kill", lambda process, which: sent.append(which))
    monkeypatch.setattr(sys, "platform", "win32")
    assert interrupt._alive(os.getpid())
    assert sent == []


@pytest.mark.parametrize("which", SIGNALS)
def test_first_signal_is_noted_and_handlers_come_back(which: signal.Signals) -> None:
    before = signal.getsignal(which)
    with Interrupt() as interrupt:
        assert not interrupt.due
        signal.raise_signal(which)
        assert interrupt.signal == which
        assert interrupt.due
    assert signal.getsignal(which) == before


def test_a_deadline_is_no_signal() -> None:
    assert Interrupt(deadline=time.time() - 1).due
    assert not Interrupt(deadline=time.time() + 100).due
    assert not Interrupt().due


LOOP = """
    import time
    from aseqdip.run.interrupt import Interrupt
    with Interrupt() as interrupt:
        print("ready", flush=True)
        while not interrupt.due:
            time.sleep(0.01)
        print("saving", flush=True)
        time.sleep(30)
"""


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_kills_whichever_it_is(second: signal.Signals) -> None:
    with script(LOOP) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "saving"
        process.send_signal(second)
        assert process.wait(10) == -second


def test_what_nohup_ignores_stays_ignored() -> None:
    text = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + textwrap.dedent(LOOP)
    with script(text) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert line(process) == "saving"


COMMAND = """
    import sys, time
    from aseqdip.run.interrupt import Command
    with Command() as command:
        command.expect_workers()
        print(command.folder, flush=True)
        for _ in range(600):  # in bits: a signal between Python's last look and the system call does not wake the sleep
            time.sleep(0.05)
    sys.exit(command.status())
"""


@pytest.mark.parametrize("which", SIGNALS)
def test_a_command_that_computes_nothing_ends_at_once(which: signal.Signals) -> None:
    with script(COMMAND) as process:
        folder = Path(line(process))
        assert folder.is_dir()
        process.send_signal(which)
        assert process.wait(10) == SIGNALLED + which
        assert process.stdout is not None
        assert process.stdout.read() == "", "no traceback"
    assert not folder.exists()


WORKERS = """
    import sys, time
    from joblib import Parallel, delayed
    from aseqdip.run.interrupt import Command, end_job

    def job(number):
        import signal, time, os
        from aseqdip.run.interrupt import Interrupt, end_job, leave_signals_to_the_command
        leave_signals_to_the_command()
        with Interrupt() as interrupt:
            if not interrupt.due:
                os.write(1, f"computing {os.getpid()}\\n".encode())
            while not interrupt.due:
                time.sleep(0.01)
        time.sleep(0.3 * number)
        os.write(1, f"saved {number}\\n".encode())
        end_job(128 + interrupt.signal)

    with Command() as command:
        command.expect_workers()
        Parallel(n_jobs=2, backend="loky")(delayed(job)(number) for number in range(4))
        print("all", flush=True)
    sys.exit(command.status())
"""


@pytest.mark.slow
@pytest.mark.parametrize("which", SIGNALS)
def test_workers_get_the_word_and_are_waited_for(which: signal.Signals) -> None:
    pytest.importorskip("joblib")
    with script(WORKERS) as process:
        assert {line(process).split()[0] for _ in range(2)} == {"computing"}
        process.send_signal(which)
        assert process.wait(30) == SIGNALLED + which
        assert process.stdout is not None
        said = process.stdout.read().splitlines()
        assert sorted(text for text in said if text.startswith("saved")) == [f"saved {n}" for n in range(4)], said
        assert said[-1] == "all"


@pytest.mark.slow
def test_workers_outlive_a_killed_command_by_a_step() -> None:
    pytest.importorskip("joblib")
    with script(WORKERS) as process:
        workers = [int(line(process).split()[1]) for _ in range(2)]
        process.kill()
        assert process.stdout is not None
        said = sorted(line(process) for _ in range(2))
        assert said == ["saved 0", "saved 1"], said
        process.wait()
    deadline = time.monotonic() + 20
    while any(map(interrupt._alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(interrupt._alive, workers)), "nobody is left"


def test_a_worker_elsewhere_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(interrupt._VARIABLE, "1:/not/on/this/machine")
    assert Interrupt().worker is None
    assert not Interrupt().due


def test_the_worst_of_all_jobs_is_the_command_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for noted, worst in (
        ([], DONE),
        ([DONE, DONE], DONE),
        ([UNFINISHED, DONE], UNFINISHED),
        ([UNFINISHED, FAILED, DONE], FAILED),
        ([UNFINISHED, FAILED, BAD_INPUT], BAD_INPUT),
    ):
        for in_worker in (False, True):
            with Command() as command:
                command.expect_workers()
                if in_worker:  # the command is another process
                    monkeypatch.setenv(interrupt._VARIABLE, f"{os.getppid()}:{command.folder}")
                for status in noted:
                    end_job(status)
                assert command.status() == worst
                assert in_worker or command.noted == set(noted)


def test_a_signal_ends_a_sweep_in_this_process_and_comes_first() -> None:
    with Command() as command:
        end_job(FAILED)
        with pytest.raises(SystemExit) as stopped:
            end_job(SIGNALLED + signal.SIGTERM)
    assert stopped.value.code == 143
    assert command.status() == 143


def test_a_command_without_a_temporary_folder_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with Command() as command:
        command.expect_workers()
        assert command.folder is None
        end_job(FAILED)
    assert command.status() == FAILED
