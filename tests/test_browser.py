"""Screenshots of a preview: by a real Chromium, and one sentence where there is none or it does not do its work."""

from __future__ import annotations

import struct
import webbrowser
from pathlib import Path

import pytest

from digest.cli import browser
from digest.config import Settings
from digest.fetch import Fetcher
from tests.mail_sample import picture_server

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><style>body {{ margin: 0; background: #fff }}
@media (prefers-color-scheme: dark) {{ body {{ background: #000 }} }}</style></head><body>
<div style="height: 1500px"></div><img src="{picture}" width="50" height="50" alt="A picture">
<img src="http://127.0.0.1:1/inside.png" alt=""><img src="file:///etc/hostname" alt="">
<script>document.body.style.height = "9000px"</script></body></html>"""


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.slow
def test_four_pictures_of_a_whole_mail_and_nothing_but_its_pictures_is_asked_for(
    chromium: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMIUM", chromium)
    allowed = settings.fetch.model_copy(update={"allow_hosts": ("127.0.0.1",)})
    with picture_server() as url:
        page = PAGE.format(picture=f"{url}/a-600x300.svg")
        paths = browser.take_pictures(page, tmp_path, Fetcher(allowed))
        refused = browser._fetched(page, Fetcher(settings.fetch))
        assert list(browser._fetched(page, Fetcher(allowed))) == [f"{url}/a-600x300.svg"]
    assert [p.name for p in paths] == list(browser.PICTURES)
    assert [png_size(p)[0] for p in paths] == [375, 375, 700, 700]
    assert all(1500 < png_size(p)[1] < 1700 for p in paths)  # the whole of it, and no script ran
    assert len({p.read_bytes() for p in paths}) == 4
    assert refused == {}  # this machine's own servers are no place for pictures


@pytest.mark.parametrize(
    ("program", "why"),
    [("", "Chromium is not here"), ("/bin/true", "ended by itself"), ("{tmp}/hangs", "did not answer within 1 second")],
)
def test_without_a_browser_that_works_there_is_one_sentence(
    program: str, why: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hangs").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "hangs").chmod(0o755)
    monkeypatch.setenv("CHROMIUM", program.format(tmp=tmp_path))
    monkeypatch.setattr(browser, "PATIENCE_S", 1)
    with pytest.raises(browser.NoPictures, match=why) as refused:
        browser.take_pictures("<p>Hello</p>", tmp_path, Fetcher(settings.fetch))
    assert str(refused.value).startswith("no screenshots: ")
    assert not list(tmp_path.glob("*.png"))


def test_without_a_screen_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setattr("sys.platform", "linux")
    assert not browser.show(tmp_path / "index.html", {})
    assert not opened
    assert browser.show(tmp_path / "index.html", {"DISPLAY": ":0"})
    assert opened == [(tmp_path / "index.html").as_uri()]
