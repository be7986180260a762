"""A mailbox that is polled, over IMAP or POP3: its messages one by one, and their removal once they are kept.

    with open_mailbox(where) as mailbox:
        for letter in mailbox.letters(limit): … keep it … ; mailbox.done(letter)      or mailbox.leave(letter)

`done` marks, leaving the ``with`` by the front door removes: a message that was not `done`, and everything when the
connection breaks, is there again at the next poll. Of a message no more than its beginning is held in memory. What a
message says is `reports`.
"""

from __future__ import annotations

import hashlib
import imaplib
import poplib
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from digest.delivery.classify import printable
from digest.delivery.reports import LIMIT, Letter
from digest.errors import DeliveryError
from digest.types import MailPlace

#: Sequence numbers asked for at once: answers stay short however full the mailbox is.
_BLOCK = 2000
_LINE = 1 << 16


class Mailbox(Protocol):
    """An open mailbox. Any call may raise DeliveryError when the connection is gone."""

    def letters(self, most: int) -> Iterator[Letter]:
        """At most so many messages that nobody has left here, with their octets."""

    def done(self, letter: Letter) -> None:
        """It is kept elsewhere: may be removed."""

    def leave(self, letter: Letter) -> None:
        """It is for a person: let it lie, and do not read it again where the protocol allows to say so."""


@contextmanager
def open_mailbox(place: MailPlace) -> Iterator[Mailbox]:
    """The mailbox, signed in. DeliveryError, in one sentence without a password: it cannot be reached or opened."""
    try:
        mailbox = _Imap(place) if place.protocol == "imap" else _Pop(place)
    except (*_BROKEN, poplib.error_proto, imaplib.IMAP4.error) as e:
        raise _trouble(place, e) from None
    try:
        yield mailbox
        mailbox.remove()
    except (*_BROKEN, poplib.error_proto, imaplib.IMAP4.error) as e:
        raise _trouble(place, e) from None
    finally:
        mailbox.close()


_BROKEN = (OSError, EOFError, ssl.SSLError, UnicodeError)


def _trouble(place: MailPlace, error: Exception) -> DeliveryError:
    said = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], bytes | str) else str(error)
    said = printable(said)[:200].replace(place.password or "\0", "***") or type(error).__name__
    return DeliveryError(
        f"the mailbox of bounces at {place.host}:{place.port} cannot be read ({said}); check [bounces]"
    )


def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


# ----------------------------------------------------------------------------- IMAP


class _Imap:
    """RFC 3501. A message left for a person is flagged, which they see as a star."""

    def __init__(self, place: MailPlace) -> None:
        if place.security == "tls":
            self._server: imaplib.IMAP4 = imaplib.IMAP4_SSL(
                place.host, place.port, ssl_context=_context(), timeout=place.timeout_s
            )
        else:
            self._server = imaplib.IMAP4(place.host, place.port, timeout=place.timeout_s)
        try:
            if place.security == "starttls":
                self._server.starttls(_context())
            self._server.login(place.username, place.password)
            self._count = int(_text(_expect(self._server.select(_quoted(place.folder)))[0]) or 0)
        except BaseException:
            self.close()
            raise
        self._uids: dict[str, bytes] = {}
        self._done: list[bytes] = []

    def letters(self, most: int) -> Iterator[Letter]:
        for uid in self._waiting()[:most]:
            letter = self._fetch(uid)
            if letter is not None:
                self._uids[letter.fingerprint] = uid
                yield letter

    def _waiting(self) -> list[bytes]:
        """Messages that are not left for a person, oldest first. One that is marked but still there was not removed."""
        found: list[bytes] = []
        for first in range(1, self._count + 1, _BLOCK):
            block = f"{first}:{min(first + _BLOCK - 1, self._count)}"
            data = _expect(self._server.uid("SEARCH", block, "UNFLAGGED"))
            found += _text(data[0]).encode().split()
        return found

    def _fetch(self, uid: bytes) -> Letter | None:
        asked = f"(RFC822.SIZE BODY.PEEK[]<0.{LIMIT}>)"
        data = _expect(self._server.uid("FETCH", uid.decode(), asked))
        pieces = [piece for piece in data if isinstance(piece, tuple)]
        if not pieces:
            return None  # somebody else has removed it
        octets = pieces[0][1]
        told = b" ".join(p for piece in data for p in (piece if isinstance(piece, tuple) else (piece,))[:1] if p)
        size = re.search(rb"RFC822\.SIZE (\d+)", told)
        whole = max(int(size[1]) if size else 0, len(octets))
        return Letter(octets, whole, hashlib.sha256(octets + b"%d" % whole).hexdigest())

    def done(self, letter: Letter) -> None:
        uid = self._uids.pop(letter.fingerprint)
        _expect(self._server.uid("STORE", uid.decode(), "+FLAGS.SILENT", r"(\Deleted)"))
        self._done.append(uid)

    def leave(self, letter: Letter) -> None:
        uid = self._uids.pop(letter.fingerprint)
        _expect(self._server.uid("STORE", uid.decode(), "+FLAGS.SILENT", r"(\Flagged)"))

    def remove(self) -> None:
        if not self._done:
            return
        if "UIDPLUS" in self._server.capabilities:  # RFC 4315 §2.1: those alone, not what others have marked
            for at in range(0, len(self._done), 200):
                _expect(self._server.uid("EXPUNGE", b",".join(self._done[at : at + 200]).decode()))
        else:
            _expect(self._server.expunge())

    def close(self) -> None:
        with suppress(*_BROKEN, imaplib.IMAP4.error):
            self._server.logout()
        with suppress(*_BROKEN):  # logout closes nothing where it cannot ask
            self._server.shutdown()


def _expect(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        raise imaplib.IMAP4.error(_text(data[0]) if data else status)
    return data


def _text(data: Any) -> str:
    return data.decode("ascii", "replace") if isinstance(data, bytes) else ""


def _quoted(folder: str) -> str:
    escaped = folder.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ----------------------------------------------------------------------------- POP3


class _Pop:
    """RFC 1939. It knows no marks: a message left for a person is read again at every poll."""

    def __init__(self, place: MailPlace) -> None:
        if place.security == "tls":
            self._server: poplib.POP3 = poplib.POP3_SSL(
                place.host, place.port, timeout=place.timeout_s, context=_context()
            )
        else:
            self._server = poplib.POP3(place.host, place.port, timeout=place.timeout_s)
        try:
            if place.security == "starttls":
                self._server.stls(_context())
            self._server.user(place.username)
            self._server.pass_(place.password)
        except BaseException:
            self.close()
            raise
        self._numbers: dict[str, int] = {}

    def letters(self, most: int) -> Iterator[Letter]:
        count, _ = self._server.stat()
        for number in range(1, min(count, most) + 1):
            letter = self._retrieve(number)
            self._numbers[letter.fingerprint] = number
            yield letter

    def _retrieve(self, number: int) -> Letter:
        """RETR, read as a stream: poplib would hold all of a message, and refuses one with a long line for good."""
        self._server._shortcmd(f"RETR {number}")  # type: ignore[attr-defined]
        head, size, seen = bytearray(), 0, hashlib.sha256()
        new_line = True
        while (piece := self._server.file.readline(_LINE)) != b"" or _gone():
            if new_line and piece in (b".\r\n", b".\n"):
                break
            if new_line and piece.startswith(b".."):
                piece = piece[1:]
            new_line = piece.endswith(b"\n")
            head += piece[: LIMIT - len(head)]
            size += len(piece)
            seen.update(piece)
        return Letter(bytes(head), size, seen.hexdigest())

    def done(self, letter: Letter) -> None:
        self._server.dele(self._numbers.pop(letter.fingerprint))

    def leave(self, letter: Letter) -> None:
        self._numbers.pop(letter.fingerprint)

    def remove(self) -> None:
        """Removes what was marked (RFC 1939 §6); a connection that breaks removes nothing."""
        self._server.quit()

    def close(self) -> None:
        with suppress(*_BROKEN):
            self._server.close()


def _gone() -> bool:
    raise EOFError("the connection ended in the middle of a message")
