"""The page in a real browser: no complaint on its console, no request, columns that sort, no overflow on a phone."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_records as made

from aseqdip.report.blocks import build
from aseqdip.report.page import render
from aseqdip.report.rows import load

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed: the page is not opened"),
]


class Browser:
    """A headless browser and one page in it, spoken to over a pipe in its own protocol (Chrome DevTools)."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        ours, theirs = os.pipe(), os.pipe()
        # the browser reads its file descriptor 3 and writes to 4; taken from high numbers, so that none is overwritten
        line = f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$0" "$@"'
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            ["bash", "-c", line, CHROMIUM, *flags, "about:blank"],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        self.to, self.back = os.fdopen(ours[1], "wb", buffering=0), os.fdopen(theirs[0], "rb")
        self.number, self.session, self.rest = 0, "", b""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            chunk = self.back.read1(1 << 20)
            assert chunk, "the browser has gone"
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path) -> None:
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screen(self, width: int, height: int, dark: bool = False) -> None:
        phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.to.close()
        self.back.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page of two methods on three images, one of them with a hostile name, and of a failure."""
    cells = [("denoising", "sigma15", method) for method in ("vanilla_dip", "aseqdip")]
    records = list(made.campaign(cells, 3, 2))
    hostile = made.record("denoising", "sigma15", "aseqdip", "<script>alert(1)</script>")
    made.write(tmp_path / "outputs", [*records, hostile])
    found = load([tmp_path / "outputs"])
    (tmp_path / "report.html").write_text(render(found, build(found.rows), [tmp_path / "outputs"]))
    return tmp_path / "report.html"


SORTED = "[...document.querySelectorAll('section.block table.sortable')][0]"
COLUMN = f"[...{SORTED}.tBodies[0].rows].map(r => parseFloat(r.children[2].textContent) || 0)"


def test_the_page_works_in_a_browser(browser: Browser, page: Path) -> None:
    browser.screen(1280, 900)
    browser.open(page)
    requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()], "the page itself, nothing else"

    browser.run(f"{SORTED}.tHead.rows[0].children[2].firstElementChild.click()")
    falling = browser.run(COLUMN)
    assert falling == sorted(falling, reverse=True)
    assert len({v for v in falling if v}) == 2
    assert browser.run(f"{SORTED}.tHead.rows[0].children[2].getAttribute('aria-sort')") == "descending"
    browser.run(f"{SORTED}.tHead.rows[0].children[2].firstElementChild.click()")
    rising = [v for v in browser.run(COLUMN) if v]
    assert rising == sorted(rising)
    assert browser.run(COLUMN)[-1] == 0, "a missing value stands last both ways"

    browser.run(f"[...{SORTED}.querySelectorAll('button.open')].forEach(b => b.click())")
    assert browser.run("document.querySelectorAll('.detail tbody tr').length") == 13
    text = browser.run("[...document.querySelectorAll('.detail')].map(d => d.textContent).join(' ')")
    assert "<script>alert(1)</script>" in text, "a hostile name is shown as it is"
    assert "python run.py task=denoising method=aseqdip seed=1 images=image000" in text
    browser.run(f"{SORTED}.tHead.rows[0].children[0].firstElementChild.click()")
    assert browser.run("document.querySelectorAll('.detail').length") == 0, "sorted by method, and closed"

    for width in (375, 768, 1280):
        browser.screen(width, 800, dark=width == 768)
        assert browser.run("document.documentElement.scrollWidth") <= width, "tables scroll in their own box"
    complaints = [
        event
        for event in browser.events
        if event["method"]
        in (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
    ]
    assert complaints == []
