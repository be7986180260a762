"""Quoted-printable pieces join in any order; header values stay values."""

from __future__ import annotations

import email
import email.policy
import quopri
import re
from email.header import decode_header, make_header

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digest.mime import (
    check_address,
    encoded_words,
    header_list_id,
    header_mailbox,
    header_text,
    header_verbatim,
    qp_encode,
    qp_piece,
    qp_value,
)

any_text = st.text(st.characters(exclude_categories=["Cs"]))
#: Texts that meet at every corner of the 76-octet rule.
edgy = st.lists(
    st.sampled_from(
        [
            "a",
            ".",
            "From ",
            " ",
            "\t",
            "=",
            "é",
            "😀",
            "\n",
            "\r\n",
            "\r",
            "x" * 73,
            "y" * 74,
            "z" * 75,
            "." * 29,
            "." * 40,
        ]
    )
).map("".join)
texts = st.one_of(any_text, edgy)


def lines_of(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def assert_safe(wire: bytes) -> None:
    assert wire.count(b"\r") == wire.count(b"\n") == wire.count(b"\r\n"), "a bare CR or LF"
    assert max(map(len, wire.split(b"\r\n"))) <= 76
    assert not re.search(rb"(?m)^(\.|From )", wire)
    assert not re.search(rb"[ \t]\r\n|[ \t]\Z", wire), "a blank at a line's end"
    assert wire.isascii()


@given(st.lists(texts, max_size=6))
@example(["a" * 75, ".", "From ", "x"])
@example(["..\n.\r\n.\n", "\r.\r"])
def test_pieces_join_to_the_text_they_came_from(parts: list[str]) -> None:
    wire = b"".join(map(qp_piece, parts))
    assert_safe(wire)
    assert quopri.decodestring(wire.replace(b"\r\n", b"\n")).decode() == "".join(map(lines_of, parts))


@given(texts)
def test_an_open_text_has_room_for_its_soft_break(text: str) -> None:
    wire = qp_encode(text)
    assert_safe(wire)
    assert len(wire.rsplit(b"\r\n", 1)[-1]) <= 75


@given(texts)
def test_a_value_never_ends_a_line(value: str) -> None:
    wire = qp_value(value)
    assert_safe(wire)
    decoded = quopri.decodestring(wire.replace(b"\r\n", b"\n")).decode()
    assert "\n" not in decoded
    assert "\r" not in decoded
    assert not wire or wire.endswith(b"=\r\n")


def test_a_lone_surrogate_costs_itself() -> None:
    assert qp_encode("a\ud800b") == b"a?b"
    assert header_text("Subject", "a\ud800b é").count(b"\r\n") == 1


@given(texts)
@example("=?utf-8?q?hi=0D=0ABcc:_evil@x.example?=")
@example("=?utf-8?b?" + "A" * 500)
@example("Subject\r\nBcc: evil@x.example")
@example("x" * 2_000)
def test_a_subject_is_one_header_and_reads_as_written(text: str) -> None:
    wire = header_text("Subject", text)
    assert wire.endswith(b"\r\n")
    assert all(len(line) <= 78 for line in wire.split(b"\r\n"))
    message = email.message_from_bytes(wire + b"\r\nbody")
    assert message.keys() == ["Subject"]
    shown = str(make_header(decode_header(message["Subject"].replace("\r\n", ""))))
    assert shown == re.sub("[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()


@given(any_text, st.integers(0, 40))
def test_encoded_words_never_split_a_character(text: str, used: int) -> None:
    for word in encoded_words(text, used):
        assert len(word) <= 75
        decode_header(word)[0][0].decode("utf-8") if isinstance(decode_header(word)[0][0], bytes) else None


@given(texts)
@example('News "at" noon, <evil@x.example>')
@example("a\\")
def test_a_display_name_cannot_add_an_address(name: str) -> None:
    wire = header_mailbox("From", name, "news@example.org")
    message = email.message_from_bytes(wire + b"\r\n", policy=email.policy.default)
    assert message.keys() == ["From"]
    assert all(len(line) <= 78 for line in wire.split(b"\r\n"))
    assert [a.addr_spec for a in message["From"].addresses] == ["news@example.org"]


def test_readable_where_it_can_be() -> None:
    assert header_text("Subject", "Morning news: 5 stories") == b"Subject: Morning news: 5 stories\r\n"
    assert header_mailbox("From", "The Desk", "a@b.example") == b"From: The Desk <a@b.example>\r\n"
    assert header_mailbox("From", "Desk, The", "a@b.example") == b'From: "Desk, The" <a@b.example>\r\n'
    assert header_list_id("Daily", "daily.news.example") == b"List-Id: Daily <daily.news.example>\r\n"
    assert header_text("Subject", "Your café list") == b"Subject: =?utf-8?q?Your_caf=C3=A9_list?=\r\n"
    assert header_text("Subject", "日本").startswith(b"Subject: =?utf-8?b?")


def test_a_long_url_stays_on_its_line() -> None:
    url = "<https://news.example/unsubscribe/" + "t" * 300 + ">"
    assert header_verbatim("List-Unsubscribe", url) == b"List-Unsubscribe: " + url.encode() + b"\r\n"
    for bad in ("<https://x/\r\nBcc: a@b>", "<https://é>", "<https://x/" + "t" * 1000 + ">"):
        with pytest.raises(ValueError, match="List-Unsubscribe"):
            header_verbatim("List-Unsubscribe", bad)


@pytest.mark.parametrize("good", ["a@b.example", "a.b+c=d@sub.example.org", "o'hara@example.com", "x@xn--mller-kva.de"])
def test_addresses_that_pass(good: str) -> None:
    assert check_address(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "", "nobody", "a@", "@b", "a@b@c", "a b@c.example", "a@b.example\r\nRCPT TO:<evil@z>", "a@b.example\n",
        "a@b.example>", "<a@b.example>", "a@b.example, c@d.example", '"a b"@c.example', "a..b@c.example",
        ".a@c.example", "a@-b.example", "é@b.example", "a@é.example", "a@b.example\0", "a@[127.0.0.1]",
        "a" * 250 + "@b.example",
    ],
)  # fmt: skip
def test_addresses_that_do_not(bad: str) -> None:
    with pytest.raises(ValueError, match="cannot be written to") as caught:
        check_address(bad)
    assert not bad or bad not in str(caught.value)
