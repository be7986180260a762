"""Long proofs of what leaves: other people's parsers and filters read it, and a hundred thousand texts come back."""

from __future__ import annotations

import email
import email.policy
import os
import quopri
import random
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import mailparser
import pytest

from digest.delivery.message import Addressee, Identity, MessageFactory
from digest.mime import qp_encode, qp_piece
from digest.rendering import Renderer
from digest.types import PREVIEW, Dress
from tests.mail_sample import VIEW, sections

pytestmark = pytest.mark.full
READER = Addressee(
    address="ada@news.example", message_id="<abc@news.example>", date=datetime.now(UTC),
    unsubscribe_url="https://news.example/unsubscribe/T", preferences_url="https://news.example/preferences/T",
)  # fmt: skip
SENDER = Identity(from_name="News", from_address="news@news.example", list_id="morning.news.example")


def message(layout: str, language: str = "en") -> tuple[bytes, str, str]:
    """Bytes of a mail to one reader; its HTML and text with the reader's values in them."""
    variant = Renderer().layout(layout).open(VIEW, Dress(language)).assemble(sections(), more=2)
    return b"".join(MessageFactory(SENDER).prepare(variant).build(READER)), variant.html, variant.text


def check_bytes(raw: bytes) -> None:
    """RFC 5321 §2.3.8, §4.5.2, RFC 5322 §2.1.1, RFC 2045 §6.7, read off the octets."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")
    assert not [octet for octet in set(raw) if octet > 126 or (octet < 32 and octet not in b"\r\n\t")]
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert not re.search(rb"(?m)^(\.|From )", body)
    assert raw.endswith(b"\r\n")


def need_spamassassin() -> str:
    """Install it where that may be done; else say the one command that does."""
    if not shutil.which("spamassassin") and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "spamassassin"]
        subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )
    found = shutil.which("spamassassin")
    assert found, "no SpamAssassin; run `sudo apt-get install spamassassin`, then again"
    return found


@pytest.mark.parametrize("layout", Renderer().layouts())
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_spamassassin_finds_nothing(layout: str, language: str) -> None:
    raw, _, _ = message(layout, language)
    done = subprocess.run([need_spamassassin(), "-L", "-t"], input=raw, capture_output=True, check=True, timeout=300)
    score = re.search(rb"X-Spam-Status: \w+, score=(-?[\d.]+)", done.stdout)
    assert score, done.stderr.decode()[-500:]
    assert float(score[1]) <= 0.1, done.stdout.decode("utf-8", "replace")[-2_000:]


@pytest.mark.parametrize("layout", Renderer().layouts())
@pytest.mark.parametrize("language", ["en", "de", "ar"])
def test_two_parsers_read_the_same(layout: str, language: str) -> None:
    """The standard library's and one that is not: headers, structure, encodings and what both parts say."""
    raw, html, text = message(layout, language)
    check_bytes(raw)
    parsed = mailparser.parse_from_bytes(raw)
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert not read.defects
    assert [part.get_content_type() for part in read.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    for part in read.iter_parts():  # type: ignore[attr-defined]
        assert (part["Content-Transfer-Encoding"], part.get_content_charset()) == ("quoted-printable", "utf-8")
        assert not part.defects
    assert b"\r\nList-Unsubscribe: <https://news.example/unsubscribe/T>\r\n" in raw
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw
    assert "<morning.news.example>" in read["List-Id"]
    assert parsed.subject == read["Subject"]
    assert (
        parsed.from_
        == [("News", "news@news.example")]
        == [(read["From"].addresses[0].display_name, "news@news.example")]
    )
    assert abs(read["Date"].datetime - READER.date) < timedelta(seconds=2)
    assert not parsed.has_defects
    assert parsed.to == [("", "ada@news.example")]
    assert parsed.message_id == "<abc@news.example>"
    for found, rendered in ((parsed.text_html, html), (parsed.text_plain, text)):
        [body] = found
        wanted = rendered
        for name, shown in PREVIEW.items():
            wanted = wanted.replace(shown, getattr(READER, name))
        assert body.replace("\r\n", "\n").split() == wanted.split()


def test_a_hundred_thousand_texts_come_back_as_they_were() -> None:
    chance = random.Random(20261124)
    letters = [
        *'ab .=<>&"\t\n\r-F',
        "From ",
        "\r\n",
        "\n.\n",
        "é",
        "–",
        "😀",
        "\u200d",
        "\u0600",
        "\x00",
        "\x7f",
        "=0D=0A",
        "\u2028",
    ]
    for number in range(100_000):
        texts = ["".join(chance.choices(letters, k=chance.randrange(60))) for _ in range(chance.randrange(1, 4))]
        raw = b"".join(map(qp_piece, texts[:-1])) + qp_encode(texts[-1])
        assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"), number
        assert max(map(len, raw.split(b"\r\n"))) <= 76, number
        assert not re.search(rb"(?m)^(\.|From )", raw), number
        wanted = re.sub("\r\n|\r|\n", "\n", "".join(texts)) if len(texts) == 1 else None
        got = quopri.decodestring(raw.replace(b"\r\n", b"\n")).decode("utf-8").replace("\r\n", "\n")
        joined = "".join(re.sub("\r\n|\r|\n", "\n", text) for text in texts)
        assert got.rstrip("\n") == (wanted or joined).rstrip("\n"), number
