"""Pieces of a rendered part: cut at random tokens, encoded once, joined as bytes ever after.

Owns the tokens that stand for values not known yet, and the join of pieces into a Body. The encoding itself and the
rule that lets pieces follow each other in any order are digest.mime's; templates are layout.py's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from digest.mime import SOFT, qp_piece
from digest.types import Body

_FIELD = re.compile("n([0-9]+)z")


def size(text: str) -> int:
    """Bytes of *text* once a mail program has decoded it, line ends as CRLF."""
    length = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    length += text.count("\n")
    return length if "\r" not in text else length + text.count("\r") - 2 * text.count("\r\n")


class Tokens:
    """Random words that stand for values not known yet: one for each field, new for every instance.

    96 random bits: no article text can hold one, neither by chance nor on purpose.
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self._nonce = "z" + secrets.token_hex(12)
        self.of: Mapping[str, str] = {name: f"{self._nonce}n{n}z" for n, name in enumerate(fields)}
        self._names = list(self.of)
        self._needle = self._nonce[:11].encode("ascii")

    def split(self, text: str) -> tuple[list[str], list[str]]:
        """Return (texts, fields): one text more than fields. ValueError where a template has bent a token."""
        raw = text.encode("utf-8", "replace")
        if self._needle not in raw.lower():  # as in most articles
            return [text], []
        first, *others = text.split(self._nonce)
        found = [_FIELD.match(part) for part in others]
        texts = [first, *(part[match.end() :] for part, match in zip(others, found, strict=True) if match)]
        if not all(found) or any(self._nonce[:11] in part.lower() for part in texts):
            raise ValueError("a personal value is changed by a filter; print it as it is")
        return texts, [self._names[int(match[1])] for match in found if match]


@dataclass(frozen=True, slots=True)
class Piece:
    """A rendered and encoded stretch: ``encoded[0], fields[0], encoded[1], …``. ``size`` leaves fields out."""

    texts: tuple[str, ...]
    encoded: tuple[bytes, ...]
    fields: tuple[str, ...]
    size: int

    @classmethod
    def of(cls, text: str, tokens: Tokens | None = None) -> Piece:
        texts, fields = tokens.split(text) if tokens else ([text], [])
        return cls(tuple(texts), tuple(map(qp_piece, texts)), tuple(fields), sum(map(size, texts)))

    def measured(self, lengths: Mapping[str, int]) -> int:
        """Bytes decoded, with fields as long as *lengths* says."""
        return self.size if not self.fields else self.size + sum(lengths[name] for name in self.fields)

    def shown(self, values: Mapping[str, str]) -> str:
        """Return the text with *values* in it."""
        if not self.fields:
            return self.texts[0]
        filled = [part for text, name in zip(self.texts, self.fields, strict=False) for part in (text, values[name])]
        return "".join([*filled, self.texts[-1]])


def join(pieces: Sequence[Piece], known: Mapping[str, bytes]) -> Body:
    """Join *pieces*; fields in *known* are filled with bytes that are encoded already, the others stay open."""
    segments: list[bytes] = []
    fields: list[str] = []
    run: list[bytes] = []
    for piece in pieces:
        run.append(piece.encoded[0])
        for name, part in zip(piece.fields, piece.encoded[1:], strict=True):
            if (value := known.get(name)) is None:
                segments.append(b"".join(run))
                fields.append(name)
                run = [part]
            else:
                run += (value, part)
    # RFC 2045 §6.7: "=" cannot be the last character of an encoded part
    run[-1] = run[-1].removesuffix(SOFT)
    segments.append(b"".join(run))
    return Body(tuple(segments), tuple(fields), vouched=True)
