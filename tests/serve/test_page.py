"""The page in a real browser, driven over Chromium's own pipe: a picture is chosen, the answer is read."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live import Live, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KEY = "a-key-of-twenty-chars"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Browser:
    """One tab, by the DevTools protocol: JSON with a zero byte behind it."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            if found.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(found["params"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], 60)[0], "the browser says nothing"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def value(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

    def wait(self, script: str) -> Any:
        """The value of ``script``, once it is true."""
        deadline = time.monotonic() + 30
        while not (value := self.value(script)):
            assert time.monotonic() < deadline, (script, self.value("document.body.innerText"), self.complaints)
            time.sleep(0.05)
        return value

    def open(self, url: str, width: int = 1280, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose(self, file: Path) -> None:
        """What a person does with the file dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Chromium reads from descriptor 3 and writes to 4, whatever they were before.
    shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--remote-debugging-pipe", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        os.close(ours_out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(ours_in)


@pytest.fixture
def picture(pictures: list[bytes], tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    path.write_bytes(pictures[0])
    return path


def url(live: Live) -> str:
    return f"http://{live.host}:{live.port}/"


def test_a_chosen_picture_is_answered(server: Live, browser: Browser, picture: Path, pictures: list[bytes]) -> None:
    browser.complaints.clear()
    browser.open(url(server))
    browser.wait("document.querySelector('#name').textContent === 'digits'")
    browser.choose(picture)
    label = browser.wait("document.querySelector('#answer h2')?.textContent")
    expected = server.classify(pictures[0])[0]["top"]
    assert label == expected[0]["label"]
    assert browser.value("[...document.querySelectorAll('li .label')].map(e => e.textContent)") == [
        row["label"] for row in expected
    ]
    widths = browser.value("[...document.querySelectorAll('li .bar')].map(e => e.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 50
    assert browser.value("document.querySelector('#picture').naturalWidth") > 0
    assert browser.complaints == []


def test_what_is_no_picture_is_said_in_words(server: Live, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear server")
    browser.open(url(server))
    browser.wait("document.querySelector('#name').textContent === 'digits'")
    browser.choose(path)
    assert "not an image" in browser.wait("document.querySelector('#answer .error')?.textContent")


def test_several_models_are_chosen_from(digits: Path, quantised: Path, browser: Browser, picture: Path) -> None:
    with serving(digits, f"small={quantised}", "--max-batch", "1") as live:
        browser.open(url(live))
        browser.wait("!document.querySelector('#models').hidden")
        browser.choose(picture)
        browser.wait("document.querySelector('#answer h2') !== null")
        browser.value(
            "document.querySelector('#model').value = 'small';"
            "document.querySelector('#model').dispatchEvent(new Event('change'))"
        )
        assert browser.wait("document.querySelector('#name').textContent === 'small'")


def test_a_key_is_asked_for(digits: Path, browser: Browser, picture: Path) -> None:
    with serving(digits, env={"TORCHSTONE_API_KEYS": KEY}) as live:
        browser.open(url(live))
        browser.wait("!document.querySelector('#locked').hidden")
        browser.choose(picture)
        assert "API key" in browser.wait("document.querySelector('#answer .error')?.textContent")
        browser.value(
            f"document.querySelector('#key').value = '{KEY}';"
            "document.querySelector('#key').dispatchEvent(new Event('change'))"
        )
        assert browser.wait("document.querySelector('#answer h2')?.textContent")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_reaches_out_of_the_page(server: Live, browser: Browser, picture: Path, width: int, dark: bool) -> None:
    browser.open(url(server), width, dark=dark)
    browser.wait("document.querySelector('#name').textContent === 'digits'")
    browser.choose(picture)
    browser.wait("document.querySelector('#answer h2') !== null")
    script = (
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.tagName)"
    )
    assert browser.value(script) == []
    assert browser.value("document.documentElement.scrollWidth") == width
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 24, 31)" if dark else "rgb(255, 255, 255)")


def test_the_page_lets_nothing_from_elsewhere_in(server: Live) -> None:
    policy = server.ask("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
