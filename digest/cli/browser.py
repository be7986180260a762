"""Pictures of a mail, as a browser shows it: narrow and wide, light and dark. And opening it in the person's own.

Owns the conversation with Chromium (DevTools messages over a pipe; no port is opened) and what a mail may ask for on
the way: its pictures, fetched by `digest.fetch` under its guard, and nothing else. No script of a mail runs.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from digest.errors import SourceError
from digest.fetch import Fetcher, Response
from digest.types import RenderedVariant

WIDTHS = (375, 700)
SCHEMES = ("light", "dark")
PICTURES = tuple(f"edition-{width}-{scheme}.png" for width in WIDTHS for scheme in SCHEMES)
OVERVIEW = "index.html"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PATIENCE_S = 60.0  # for all pictures of one mail
PICTURE_S = 5.0  # for one picture that stands in the mail
FETCHING_S = 15.0  # for all of these; what has not come by then is shown as blocked
_TALLEST = 16_000  # pixels: what Chromium draws in one piece
_PAGE = "https://mail.invalid/"
_SOURCE = re.compile(r"""\bsrc=["'](https?://[^"']+)""")
_ARGUMENTS = (
    "--headless", "--remote-debugging-pipe", "--hide-scrollbars", "--mute-audio", "--no-first-run", "--disable-gpu",
    "--disable-extensions", "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage",
    "--no-default-browser-check",
)  # fmt: skip


class NoPictures(Exception):
    """Why there are none, in one sentence."""


def find_chromium(environ: Mapping[str, str] = os.environ) -> str | None:
    """The browser's program: ``CHROMIUM`` names one, and empty none; else the first of the usual names."""
    names = NAMES if (named := environ.get("CHROMIUM")) is None else (named,)
    return next((path for name in names if name and (path := shutil.which(name))), None)


def take_pictures(page: str, folder: Path, fetcher: Fetcher) -> list[Path]:
    """Write `PICTURES` of *page*, whole mails from top to bottom, to *folder*. NoPictures where none can be made."""
    if (program := find_chromium()) is None:
        raise NoPictures("no screenshots: Chromium is not here; install it, or name one: CHROMIUM=/path/to/chromium")
    parts = _fetched(page, fetcher)
    written = []
    with _chromium(program) as browser:
        for name, (width, scheme) in zip(PICTURES, ((w, s) for w in WIDTHS for s in SCHEMES), strict=True):
            (folder / name).write_bytes(_picture(browser, page, parts, width, scheme))
            (folder / name).chmod(0o644)
            written.append(folder / name)
    return written


def show(path: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Open a file in the person's browser; False where there is no screen to show it on."""
    screen = sys.platform == "darwin" or any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    try:
        return screen and webbrowser.open(path.absolute().as_uri())
    except webbrowser.Error:
        return False


def overview(mail: RenderedVariant, pictures: Sequence[str]) -> str:
    """A page that shows what lies beside it: what an inbox says of the mail, the mail, its text."""
    e = html.escape
    frame = '<iframe src="edition.html" title="{0} pixels wide" sandbox width="{0}" height="800"></iframe>'
    frames = "".join(frame.format(width) for width in WIDTHS) if mail.html else ""
    shots = "".join(f'<a href="{e(name)}"><img src="{e(name)}" alt="{e(name)}" width="240"></a>' for name in pictures)
    lines = {"subject": e(mail.subject), "preheader": e(mail.preheader), "text": e(mail.text)}
    return _OVERVIEW.format(**lines, frames=frames, shots=shots)


_OVERVIEW = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{subject}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:24px;color-scheme:light dark}}
section{{display:flex;flex-wrap:wrap;align-items:flex-start;gap:16px;margin:16px 0}}
iframe,img{{border:1px solid #8888;max-width:100%}}pre{{white-space:pre-wrap;max-width:80ch}}</style>
<h1>{subject}</h1><p>{preheader}</p>
<p><a href="edition.html">HTML</a> · <a href="edition.txt">text</a> · <a href="edition.eml">the whole message</a>
· <a href="edition.json">picks, reasons and gates</a></p>
<section>{frames}</section><section>{shots}</section><pre>{text}</pre></html>
"""


# ----------------------------------------------------------------------------- what stands in the mail


def _fetched(page: str, fetcher: Fetcher) -> dict[str, Response]:
    """The pictures of a mail, by address, as far as they come in time."""
    urls = list(dict.fromkeys(html.unescape(url) for url in _SOURCE.findall(page)))
    got: dict[str, Response] = {}

    def get(url: str) -> None:
        with suppress(SourceError):
            got[url] = fetcher.get(url, accept="image/*")

    pool = ThreadPoolExecutor(8)
    wait([pool.submit(get, url) for url in urls], FETCHING_S)
    pool.shutdown(wait=False, cancel_futures=True)
    return dict(got)


# ----------------------------------------------------------------------------- the browser


class _Browser:
    """DevTools messages, one JSON object each, with a NUL behind it."""

    def __init__(self, into: int, out: int, deadline: float) -> None:
        self._into, self._out, self._deadline = into, out, deadline
        self._number, self._unread = 0, b""
        self.on_request: Callable[[dict[str, Any], str], None] = lambda event, session: None

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; requests of the page are met meanwhile."""
        number = self.tell(method, session, **params)
        while (message := self._read()).get("id") != number:
            self._meet(message)
        if "error" in message:
            raise NoPictures(f"no screenshots: Chromium says {message['error'].get('message')!r} to {method}")
        return dict(message["result"])

    def tell(self, method: str, session: str | None = None, **params: Any) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._into, data) :]
        return self._number

    def wait_for(self, event: str, session: str) -> None:
        while (message := self._read()).get("method") != event or message.get("sessionId") != session:
            self._meet(message)

    def _meet(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Fetch.requestPaused":
            self.on_request(message["params"], message["sessionId"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                raise NoPictures(f"no screenshots: Chromium did not answer within {PATIENCE_S:g} seconds")
            if not (data := os.read(self._out, 1 << 20)):
                raise NoPictures("no screenshots: Chromium ended by itself; start it by hand to see why")
            self._unread += data
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def _chromium(program: str) -> Iterator[_Browser]:
    """A browser of its own, without a profile to keep; gone with all its processes afterwards."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(prefix="digest-browser-", ignore_cleanup_errors=True) as profile:
        arguments = [program, *_ARGUMENTS, f"--user-data-dir={profile}", *_as_root()]
        # Chromium reads commands from descriptor 3 and answers on 4
        line = f'exec "$@" 3</dev/fd/{read_commands} 4>/dev/fd/{write_answers}'
        process = subprocess.Popen(  # noqa: S603 — a program found on the PATH or named by the person
            ["/bin/sh", "-c", line, "sh", *arguments], pass_fds=(read_commands, write_answers), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_commands)
        os.close(write_answers)
        try:
            yield _Browser(commands, answers, time.monotonic() + PATIENCE_S)
        except BrokenPipeError as e:
            raise NoPictures("no screenshots: Chromium ended by itself; start it by hand to see why") from e
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(commands)
            os.close(answers)


def _as_root() -> Sequence[str]:
    """Chromium starts for root only without its sandbox; no script of a mail runs either way."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


def _picture(browser: _Browser, page: str, parts: Mapping[str, Response], width: int, scheme: str) -> bytes:
    """One PNG: the mail loaded in a tab of its own, as wide as said, as high as it is."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    tab = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def meet(event: dict[str, Any], session: str) -> None:
        _answer(browser, event, session, page, parts)

    browser.on_request = meet
    browser.ask("Page.enable", tab)
    browser.ask("Emulation.setScriptExecutionDisabled", tab, value=True)
    browser.ask("Emulation.setDeviceMetricsOverride", tab, width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.ask("Emulation.setEmulatedMedia", tab, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.ask("Fetch.enable", tab, patterns=[{"urlPattern": "*"}])
    browser.tell("Page.navigate", tab, url=_PAGE)
    browser.wait_for("Page.loadEventFired", tab)
    size = browser.ask("Page.getLayoutMetrics", tab)["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": width, "height": min(size["height"], _TALLEST), "scale": 1}
    shot = browser.ask("Page.captureScreenshot", tab, format="png", captureBeyondViewport=True, clip=clip)
    browser.ask("Target.closeTarget", targetId=target)
    return base64.b64decode(shot["data"])


def _answer(browser: _Browser, event: dict[str, Any], tab: str, page: str, parts: Mapping[str, Response]) -> None:
    """Give the tab the mail itself or a picture of it; nothing else."""
    url, request = event["request"]["url"], event["requestId"]
    part = parts.get(url)
    if url != _PAGE and part is None:
        browser.tell("Fetch.failRequest", tab, requestId=request, errorReason="BlockedByClient")
        return
    kind = "text/html; charset=utf-8" if part is None else part.headers.get("content-type", "image/jpeg")
    body = page.encode() if part is None else part.content
    browser.tell(
        "Fetch.fulfillRequest", tab, requestId=request, responseCode=200,
        responseHeaders=[{"name": "content-type", "value": kind}], body=base64.b64encode(body).decode(),
    )  # fmt: skip
