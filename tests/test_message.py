"""A message on the wire: raw octets and what a mail program reads from them."""

from __future__ import annotations

import email
import email.policy
import html
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digest.delivery.message import (
    Addressee,
    Identity,
    MessageFactory,
    message_id,
    parse_verp,
    system_message,
    verp,
)
from digest.errors import RenderError
from digest.mime import qp_encode, qp_piece
from digest.types import Body, RenderedVariant

NOW = datetime(2026, 11, 24, 7, 30, 5, 123456, tzinfo=UTC)
KEY = b"k" * 32
IDENTITY = Identity(
    from_address="news@example.org",
    from_name="The Daily, every day",
    reply_to="desk@example.org",
    list_id="daily.news.example.org",
    list_name="The Daily",
    archive_url="https://news.example.org/archive/daily/2026-11-24",
    feedback_id=("daily", "42", "digest", "exampleorg"),
)
ADA = Addressee(
    address="ada@example.net",
    message_id=message_id(KEY, 42, 7, "example.org"),
    unsubscribe_url="https://news.example.org/unsubscribe/" + "Zm9vYmFy.x-y_z" * 10,
    preferences_url="https://news.example.org/preferences/abc?a=1&b=2",
    date=NOW,
)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
#: What SMTP servers have been confused by: each must arrive as text.
SMUGGLING = ["\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", "\r\n.\r\n", "..", ".", "a\r\n.\r\nMAIL FROM:<evil@x.example>\r\n"]


def body(*texts: str, fields: tuple[str, ...] = ()) -> Body:
    return Body((*map(qp_piece, texts[:-1]), qp_encode(texts[-1])), fields)


def rendered(
    subject: str = "Five stories", text: str = "Hello\n", page: str | None = "<p>Hello</p>\n"
) -> RenderedVariant:
    fields = ("address", "unsubscribe_url", "preferences_url")
    return RenderedVariant(
        subject=subject, preheader="", html="", text="", html_size=0,
        html_body=None if page is None else body(page, "<a href='", "'>leave</a><a href='", f"'>{page}", fields=fields),
        text_body=body(text, "\nleave: ", "\nchoose: ", f"\n{text}", fields=fields),
    )  # fmt: skip


def build(variant: RenderedVariant, to: Addressee = ADA, identity: Identity = IDENTITY) -> bytes:
    return b"".join(MessageFactory(identity).prepare(variant).build(to))


def assert_wire(raw: bytes) -> None:
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"), "a bare CR or LF"
    assert raw.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 998
    assert max(map(len, rest.split(b"\r\n"))) <= 76
    assert not re.search(rb"(?m)^\.", raw), "a line begins with a dot"
    assert raw.endswith(b"\r\n")


def parts_of(raw: bytes) -> dict[str, str]:
    message = email.message_from_bytes(raw)
    assert not message.defects
    leaves = [part for part in message.walk() if not part.is_multipart()]
    assert not any(part.defects for part in leaves)
    return {p.get_content_type(): p.get_payload(decode=True).decode("utf-8") for p in leaves}  # type: ignore[union-attr]


def header(message: Message, name: str) -> str:
    return str(make_header(decode_header(message[name].replace("\r\n", ""))))


def test_the_headers_of_the_contract() -> None:
    message = email.message_from_bytes(build(rendered()))
    assert message.keys() == [
        "From", "To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "Reply-To", "List-Id", "List-Archive",
        "Feedback-ID", "List-Unsubscribe-Post", "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert message["From"] == '"The Daily, every day" <news@example.org>'
    assert message["To"] == "ada@example.net"
    assert message["Date"] == "Tue, 24 Nov 2026 07:30:05 +0000"
    assert message["Message-ID"] == ADA.message_id
    assert message["List-Id"] == "The Daily <daily.news.example.org>"
    assert message["List-Unsubscribe"] == f"<{ADA.unsubscribe_url}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Feedback-ID"] == "daily:42:digest:exampleorg"
    assert message.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in message.get_payload()] == ["text/plain", "text/html"]  # type: ignore[union-attr]


def test_unsubscribe_is_one_unfolded_line() -> None:
    line = b"\r\nList-Unsubscribe: <" + ADA.unsubscribe_url.encode() + b">\r\n"
    assert line in build(rendered())


@given(any_text, any_text, any_text)
@example("=?utf-8?q?hi=0D=0ABcc:_evil@x.example?=", "\n.\n", "\r.\r")
@example("Subject\r\nBcc: evil@x.example", ".", "From me")
def test_hostile_text_stays_text(subject: str, text: str, page: str) -> None:
    raw = build(rendered(subject, text, page))
    assert_wire(raw)
    message = email.message_from_bytes(raw)
    assert len(message.keys()) == 13
    assert header(message, "Subject") == re.sub("[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", subject).strip()
    lines = (text + ADA.address + "\nleave: ").replace("\r\n", "\n").replace("\r", "\n")
    assert parts_of(raw)["text/plain"].replace("\r\n", "\n").startswith(lines)


@pytest.mark.parametrize("smuggled", SMUGGLING)
def test_no_body_ends_the_message(smuggled: str) -> None:
    raw = build(rendered("s", smuggled + "x" + smuggled, smuggled))
    assert_wire(raw)
    assert b"\r\n.\r\n" not in raw


@given(st.lists(any_text, min_size=3, max_size=3))
def test_values_of_any_shape(values: list[str]) -> None:
    part = body("<", ">", fields=("preferences_url",))
    variant = replace(rendered(), html_body=part, text_body=part)
    for value in values:
        raw = build(variant, replace(ADA, preferences_url=value))
        assert_wire(raw)
        shown = re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", value)
        assert parts_of(raw) == {"text/plain": f"<{shown}>\r\n", "text/html": f"<{html.escape(shown)}>\r\n"}


def test_values_are_escaped_in_html_and_plain_in_text() -> None:
    parts = parts_of(build(rendered()))
    assert "preferences/abc?a=1&b=2" in parts["text/plain"]
    assert "preferences/abc?a=1&amp;b=2'" in parts["text/html"]
    assert ADA.unsubscribe_url in parts["text/html"]


def test_a_reader_of_plain_text_gets_one_part() -> None:
    raw = build(rendered(page=None))
    assert_wire(raw)
    assert email.message_from_bytes(raw).get_content_type() == "text/plain"
    assert parts_of(raw)["text/plain"].startswith("Hello\r\nada@example.net")


def test_the_same_addressee_gets_the_same_bytes_from_another_process() -> None:
    assert build(rendered()) == build(rendered())
    assert build(rendered()) != build(rendered(text="Other\n"))


def test_the_date_is_written_in_utc_and_needs_a_zone() -> None:
    east = replace(ADA, date=NOW.astimezone(timezone(timedelta(hours=5, minutes=30))))
    assert email.message_from_bytes(build(rendered(), east))["Date"] == "Tue, 24 Nov 2026 07:30:05 +0000"
    with pytest.raises(ValueError, match="zone"):
        build(rendered(), replace(ADA, date=NOW.replace(tzinfo=None)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "ada@example.net>\r\nRCPT TO:<evil@x.example"),
        ("address", "ada@example.net\r\nBcc: evil@x.example"),
        ("address", "ada@example.net\0"),
        ("address", "ada@example.net, evil@x.example"),
        ("address", "é@example.net"),
        ("message_id", "<a@b>\r\nBcc: evil@x.example"),
        ("message_id", "no-brackets@example.org"),
        ("unsubscribe_url", "https://x.example/>, <mailto:evil@x.example"),
        ("unsubscribe_url", "https://x.example/\r\nBcc: evil@x.example"),
        ("unsubscribe_url", "https://x.example/" + "t" * 1000),
        ("unsubscribe_url", "javascript:alert(1)"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused(field: str, value: str) -> None:
    prepared = MessageFactory(IDENTITY).prepare(rendered())
    with pytest.raises(ValueError, match="cannot"):
        prepared.build(replace(ADA, **{field: value}))


@pytest.mark.parametrize(
    "broken",
    [
        Body((b"a\nb",), ()),
        Body((b"a\rb",), ()),
        Body((b".\r\n",), ()),
        Body((b"a\r\n.\r\nb",), ()),
        Body((b"a",), ("address",)),
        Body((b"a", b"b"), ("password",)),
    ],
)
def test_a_part_that_is_not_safe_on_the_wire_is_refused_once_a_variant(broken: Body) -> None:
    with pytest.raises(RenderError):
        MessageFactory(IDENTITY).prepare(replace(rendered(), text_body=broken))


def test_segments_open_or_closed_join_the_same() -> None:
    """An encoder may put the breaks around a value before it, after it, or on both sides."""
    fields = ("address",)
    for segments in (
        (b"to ", b" bye"),
        (b"to =\r\n", b"=\r\n bye"),
        (b"to =\r\n", b" bye=\r\n"),
        (b"to ", b"=\r\n bye"),
    ):
        raw = build(replace(rendered(page=None), text_body=Body(segments, fields)))
        assert_wire(raw)
        assert parts_of(raw)["text/plain"] == "to ada@example.net bye\r\n"


def test_no_boundary_can_occur_in_a_part() -> None:
    boundary = email.message_from_bytes(build(rendered())).get_boundary()
    assert boundary
    raw = build(rendered("s", f"--{boundary}\n", f"--{boundary}--"))
    assert sorted(parts_of(raw)) == ["text/html", "text/plain"]


def test_a_system_message() -> None:
    raw = system_message(
        IDENTITY, to="ada@example.net", subject="Bitte bestätigen", text="Hello\n.\n", html_text="<p>ä</p>",
        message_id=message_id(KEY, 0, 7, "example.org"), date=NOW,
    )  # fmt: skip
    assert_wire(raw)
    message = email.message_from_bytes(raw)
    assert message["Auto-Submitted"] == "auto-generated"
    assert not [name for name in message.keys() if name.startswith("List-")]  # noqa: SIM118
    assert parts_of(raw) == {"text/plain": "Hello\r\n.\r\n", "text/html": "<p>ä</p>\r\n"}
    assert header(message, "Subject") == "Bitte bestätigen"


def test_names_on_the_wire_are_steady_and_cannot_be_guessed() -> None:
    assert message_id(KEY, 1, 23, "example.org") == message_id(KEY, 1, 23, "example.org")
    assert message_id(KEY, 1, 23, "example.org") != message_id(KEY, 12, 3, "example.org")
    assert message_id(KEY, 1, 23, "example.org") != message_id(b"other", 1, 23, "example.org")
    sender = verp(2**63 - 1, 2**63 - 2, KEY, "example.org")
    assert len(sender.partition("@")[0]) <= 64
    assert parse_verp(sender, KEY, "example.org") == (2**63 - 1, 2**63 - 2)
    assert parse_verp(sender.upper(), KEY, "example.org") == (2**63 - 1, 2**63 - 2)


@pytest.mark.parametrize(
    "forged",
    [
        "b+1.3.{mac}@example.org",
        "b+1.2.{mac}@evil.example",
        "b+1.2@example.org",
        "",
        "@",
        "b+1.2.aaaaaaaaaaaaaaaaaaaa@example.org",
    ],
)
def test_a_forged_envelope_sender_names_nothing(forged: str) -> None:
    mac = verp(1, 2, KEY, "example.org").partition("@")[0].rpartition(".")[2]
    assert parse_verp(forged.format(mac=mac), KEY, "example.org") is None
