"""What the shipped mails use is known to the mail programs of our readers, or something is seen in its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import clients, mail_gallery

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"


@pytest.fixture(scope="module")
def used() -> set[str]:
    return clients.used_by_shipped()


def test_nothing_is_used_that_a_program_does_not_know_without_something_in_its_place(used: set[str]) -> None:
    assert set(clients.lacking(used)) - clients.FALLBACKS.keys() == set()
    assert used - clients.table().keys() - clients.UNTESTED.keys() == set()


def test_no_fallback_is_told_of_what_is_not_used(used: set[str]) -> None:
    assert clients.FALLBACKS.keys() - clients.lacking(used).keys() == set()
    assert clients.UNTESTED.keys() - used == set()


def test_the_page_says_what_the_mails_use(used: set[str]) -> None:
    assert clients.told(used) in PAGE.read_text("utf-8"), "./run looks writes it anew"


@pytest.mark.parametrize(
    ("html", "feature"),
    [
        ('<div style="display:flex">', "css-display-flex"),
        ('<img style="object-fit:cover">', "css-object-fit"),
        ('<p style="width:calc(100% - 4px)">', "css-unit-calc"),
        ("<style>a > b { color: red }</style>", "css-selector-child"),
        ("<style>@supports (display: grid) { p { color: red } }</style>", "css-at-supports"),
        ("<style>@media (hover) { p { color: red } }</style>", "css-at-media-hover"),
        ("<style>p::before { content: 'x' }</style>", "css-pseudo-element-before"),
        ('<img srcset="a.png 2x">', "html-srcset"),
        ("<video></video>", "html-video"),
        ("<main></main>", "html-semantics"),
        ('<p style="font-family:system-ui">', "css-sytem-ui"),
        ('<p style="width:50vw">', "css-unit-vw"),
    ],
)
def test_a_feature_that_some_do_not_know_is_seen(html: str, feature: str) -> None:
    found = clients.features(f"<!DOCTYPE html><html><body>{html}</body></html>")
    assert feature in found
    assert feature in clients.lacking(found)
    assert feature not in clients.FALLBACKS, "choose one that the shipped mails do not use"


def test_what_is_written_for_outlook_alone_is_not_asked_of_others() -> None:
    found = clients.features("<body><!--[if mso]><video></video><style>p{display:flex}</style><![endif]--></body>")
    assert "html-video" not in found
    assert "css-display-flex" not in found


@pytest.mark.parametrize("layout", mail_gallery.LAYOUTS)
def test_outlook_sees_whole_tables_of_600_pixels(layout: str) -> None:
    """What stands in conditional comments and what stands around them make one tree; pictures have a width."""
    html = mail_gallery.mail(layout, "en", 12).html
    html = re.sub(r"<!--\[if !mso\]><!-->.*?<!--<!\[endif\]-->", "", html, flags=re.S)
    seen = re.sub(r"<!--\[if [^!\]]*mso[^\]]*\]>(.*?)<!\[endif\]-->", r"\1", html, flags=re.S)
    assert "<!--[if" not in seen
    body = seen[seen.index("<body") :]
    open_now: list[str] = []
    for closing, tag in re.findall(r"<(/?)(table|tbody|tr|td|div|p|h[1-3])\b", body):
        if closing:
            assert open_now.pop() == tag
        else:
            open_now.append(tag)
    assert open_now == []
    assert re.findall(r'<table[^>]*width="600"', body)
    assert all(0 < int(width) <= 600 for width in re.findall(r'<img[^>]* width="(\d+)"', body))
    assert body.count("<img") == len(re.findall(r'<img[^>]* width="\d+"', body))
