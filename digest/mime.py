"""Bytes of mail: quoted-printable pieces that may be joined, and header values that cannot be broken out of.

Rendering encodes the fragments of a mail once; delivery encodes the few personal values and joins. Both use this page,
so that the one rule of joining has one home. Knows no SMTP, no templates and no addresses' meaning.

**The joining rule.** A *piece* is quoted-printable text that ends with a line end, hard (CRLF) or soft (``=`` CRLF),
or is empty. Any concatenation of pieces is a quoted-printable body: every piece begins at the start of a line, so what
must not stand there (a dot, ``From ``) is escaped inside the piece, whatever its neighbours are. Lines have at most 76
octets, the soft break included (RFC 2045 §6.7 rule 5), and no line begins with a dot, so that SMTP's dot-stuffing
(RFC 5321 §4.5.2) has nothing to do.
"""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache

CRLF = b"\r\n"
SOFT = b"=\r\n"

#: A quoted-printable line holds this many octets, and one more for the soft break.
_LINE = 75
_TEXT_CONTROLS = bytes({*range(32), 127} - {*b"\t\n"})
_CONTROL_RUN = re.compile(rb"[^\n\t -~]+")
_DOTS = 30
_DOT_RUN = re.compile(rb"\.{30,}")
#: The first 75 octets of a longer line, or a few less where they would end inside an escape, or before what is guarded.
_CUTS = re.compile(rb"(?=.{76}).{1,75}(?<!=)(?<!=.)(?!\.|From )|.{1,75}")
_PLAIN_VALUE = re.compile(r"[!-<>-~]+")
#: C0, DEL, C1 and Unicode's own line ends: none of them belongs into a header or a personal value.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BLANKS = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")


# ----------------------------------------------------------------------------- quoted-printable


def qp_encode(text: str) -> bytes:
    """``text`` as quoted-printable: line ends become CRLF, no line over 76 octets, none begins with a dot or ``From ``.

    The last line is left open (and has room for a soft break): close it with `qp_piece` if something is to follow.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    raw = text.replace("=", "=3D").encode("ascii", "digest.quoted-printable")
    if len(raw.translate(None, _TEXT_CONTROLS)) < len(raw):
        raw = _CONTROL_RUN.sub(_escaped_match, raw)
    return CRLF.join([_physical(line) for line in raw.split(b"\n")])


def _physical(line: bytes) -> bytes:
    """One line as one or more of at most 75 octets, all but the last closed by soft breaks."""
    if line.endswith((b" ", b"\t")):  # RFC 2045 §6.7 rule 3: blanks at a line's end would be lost
        line = line[:-1] + _escaped(line[-1:])
    if line.startswith((b".", b"From ")):  # SMTP would stuff the dot, mailboxes would quote the word
        line = _escaped(line[:1]) + line[1:]
    if len(line) <= _LINE:
        return line
    if b"." * _DOTS in line:
        line = _DOT_RUN.sub(_escaped_match, line)  # so that there is always a place to cut at
    return SOFT.join(_CUTS.findall(line))


def _escaped(octets: bytes) -> bytes:
    return b"=" + octets.hex("=").upper().encode("ascii")


def _escaped_match(found: re.Match[bytes]) -> bytes:
    return _escaped(found[0])


def _escape_letters(error: UnicodeError) -> tuple[bytes, int]:
    """What ASCII has no letters for, while all else is copied as it stands (codecs.register_error)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _escaped_letters(error.object[error.start : error.end]), error.end


@lru_cache(maxsize=4096)
def _escaped_letters(letters: str) -> bytes:
    return _escaped(letters.encode("utf-8", "replace")).replace(b"=3F", b"?")  # a lone surrogate is no letter


codecs.register_error("digest.quoted-printable", _escape_letters)


def qp_piece(text: str) -> bytes:
    """``text`` as a piece: closed by a soft break unless it ends its line itself; empty for empty text."""
    return close(qp_encode(text))


def qp_value(value: str) -> bytes:
    """A personal value as a piece. Control characters and line ends become blanks; HTML escaping is the caller's."""
    if _PLAIN_VALUE.fullmatch(value):  # a URL, an address: nothing to escape, at most a dot to watch
        raw = value.encode("ascii")
        lines = [raw] if len(raw) <= _LINE else [raw[at : at + _LINE] for at in range(0, len(raw), _LINE)]
        if not any(line.startswith(b".") for line in lines):
            return SOFT.join(lines) + SOFT
    return close(qp_encode(_CONTROLS.sub(" ", value)))


def close(encoded: bytes) -> bytes:
    """Make a piece of quoted-printable text whose last line is open."""
    return encoded if not encoded or encoded.endswith(CRLF) else encoded + SOFT


# ----------------------------------------------------------------------------- header values

_ASCII = re.compile(r"[ -~]*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")  # RFC 5322 §3.2.3, and blanks between them
#: RFC 2047 §5 (3): what may stand for itself in an encoded word of a phrase, the strictest of the three places.
_Q_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q = [chr(o) if o in _Q_SAFE else "_" if o == 0x20 else f"={o:02X}" for o in range(256)]
_WORD = 75  # RFC 2047 §2: an encoded word's length
_FOLD = 78  # RFC 5322 §2.1.1: a line should not be longer


def header_text(name: str, value: str) -> bytes:
    """``Name: value`` for text that people read (Subject), folded, with its CRLF. No value can end the header early.

    Anything but printable ASCII goes into encoded words; so does text that looks like one, so that it is shown as it
    was written instead of being decoded by somebody (which is how a title becomes a header of its own).
    """
    clean = _BLANKS.sub(" ", value).strip()
    if not clean:
        return f"{name}:".encode("ascii") + CRLF
    return _fold(name, _words(clean, len(name) + 2)) + CRLF


def header_mailbox(name: str, display: str, address: str) -> bytes:
    """``Name: "Display" <address>`` or ``Name: address``. ``address`` must have passed `check_address`."""
    clean = _BLANKS.sub(" ", display).strip()
    if not clean:
        return f"{name}: {address}".encode("ascii") + CRLF
    return _fold(name, [*_phrase(clean, len(name) + 2), f"<{address}>"]) + CRLF


def header_list_id(display: str, host: str) -> bytes:
    """RFC 2919 §3: a phrase people may read, then the identifier."""
    clean = _BLANKS.sub(" ", display).strip()
    return _fold("List-Id", [*(_phrase(clean, 9) if clean else []), f"<{host}>"]) + CRLF


def header_verbatim(name: str, value: str) -> bytes:
    """``Name: value`` on one line, never folded or encoded (URLs, identifiers). ValueError if that cannot be."""
    line = f"{name}: {value}"
    if not line.isascii() or not line.isprintable():
        raise ValueError(f"{name} must be printable ASCII")
    if len(line) > 998:  # RFC 5322 §2.1.1
        raise ValueError(f"{name} is longer than a header line may be (998)")
    return line.encode("ascii") + CRLF


def _words(clean: str, used: int) -> list[str]:
    """Words to fold at: the text's own, or encoded words."""
    if _ASCII.fullmatch(clean) and "=?" not in clean:
        words = clean.split(" ")
        if max(map(len, words)) < _FOLD - used:
            return words
    return encoded_words(clean, used)


def _phrase(clean: str, used: int) -> list[str]:
    """A display name: atoms, else a quoted string (RFC 5322 §3.2.4), else encoded words."""
    if not _ASCII.fullmatch(clean) or "=?" in clean or len(clean) > _FOLD - used - 4:
        return encoded_words(clean, used)
    if _ATOMS.fullmatch(clean):
        return [clean]
    return ['"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"']


def encoded_words(text: str, used: int = 0) -> list[str]:
    """``text`` as RFC 2047 encoded words in UTF-8, none over 75 characters, no character split between two.

    ``used``: what already stands on the first line. The shorter of Q and B is taken for the text as a whole.
    """
    raw = text.encode("utf-8", "replace")
    in_q = sum(len(_Q[octet]) for octet in raw) <= (len(raw) + 2) // 3 * 4
    words: list[str] = []
    room = max(min(_WORD, _FOLD - used) - 12, 16)  # 12: =?utf-8?q? and ?=
    chunk, length = bytearray(), 0
    for character in text:
        octets = character.encode("utf-8", "replace")
        after = length + sum(len(_Q[o]) for o in octets) if in_q else (len(chunk) + len(octets) + 2) // 3 * 4
        if after > room and chunk:
            words.append(_encoded_word(bytes(chunk), in_q))
            room = _WORD - 12
            chunk.clear()
            after = sum(len(_Q[o]) for o in octets) if in_q else (len(octets) + 2) // 3 * 4
        chunk += octets
        length = after
    words.append(_encoded_word(bytes(chunk), in_q))
    return words


def _encoded_word(raw: bytes, in_q: bool) -> str:
    if in_q:
        return "=?utf-8?q?" + "".join(_Q[octet] for octet in raw) + "?="
    return "=?utf-8?b?" + binascii.b2a_base64(raw, newline=False).decode("ascii") + "?="


def _fold(name: str, words: list[str]) -> bytes:
    """Join words by blanks, folding before a line would pass 78 characters (RFC 5322 §2.2.3)."""
    lines = [f"{name}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= _FOLD:
            lines[-1] += " " + word
        else:
            lines.append(" " + word)
    return "\r\n".join(lines).encode("ascii")


# ----------------------------------------------------------------------------- addresses

#: A dot-atom at a domain of A-labels, as it may stand in a header and in an envelope without quoting.
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def check_address(address: str) -> str:
    """``address`` itself, or ValueError: what would need quoting, SMTPUTF8 or a guess is refused, never repaired.

    Addresses are validated where they come in; this is the last line, in front of headers and commands.
    The text of the error does not repeat the address.
    """
    if len(address) > 254 or not _ADDRESS.fullmatch(address):  # RFC 5321 §4.5.3.1.3: a path of 256 with its brackets
        raise ValueError("this address cannot be written to without quoting or SMTPUTF8")
    return address
