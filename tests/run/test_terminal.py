"""Standard streams that are closed, gone, full or unable to write a letter never fail a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

WRITES = """
import sys, logging, tempfile
from aseqdip.run.terminal import steady_streams
steady_streams()
logging.basicConfig(stream=sys.stdout, level="INFO")
with open(tempfile.mktemp(), "wb") as file:
    assert file.fileno() > 2, "a file took the number of a closed stream"
for i in range(20000):
    logging.info("a line of a log \\u00e9 \\u4e2d")
    print("an error \\u00e9", file=sys.stderr)
sys.stdout.flush()
sys.exit(7)
"""


@pytest.mark.parametrize(
    "ending",
    ["", "2>&-", ">&-", ">&- 2>&- <&-", "| head -1", "2>&1 | head -1", "2>&1 | true", "> /dev/full", "2> /dev/full"],
)
@pytest.mark.parametrize("locale", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_command_writes_to_anything(ending: str, locale: dict[str, str]) -> None:
    if "/dev/full" in ending and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = f'"$PYTHON" -c "$TEXT" {ending}; echo "status ${{PIPESTATUS[0]}}" >&9'
    read, write = os.pipe()
    shell = ["bash", "-c", f"exec 9>&{write}; {command}"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "TEXT": WRITES, **locale}
    result = subprocess.run(shell, env=variables, capture_output=True, text=True, pass_fds=[write], timeout=60)
    os.close(write)
    with os.fdopen(read) as status:
        assert status.read() == "status 7\n", result.stderr[-500:]
    assert "Traceback" not in result.stdout + result.stderr
    assert "BrokenPipe" not in result.stdout + result.stderr
