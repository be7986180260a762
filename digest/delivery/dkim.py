"""DKIM: signatures that receivers can check against a key in DNS (RFC 6376, RFC 8463 for Ed25519, RFC 8301 for sizes).

    read_key(selector, file)          a private key, or one sentence about what is wrong with it
    Signer(domain, keys)              the first key of each kind signs; the others are on their way in or out
      .begin(headers, body)           what many messages share, hashed once            ≈ once a variant
        .sign(headers, body, at)      the signatures of one message, as header lines
    new_key(kind)  ·  Key.record      a fresh key file's text  ·  what DNS must say

``c=relaxed/simple``: bodies are written canonical, so they are hashed as they are. Both kinds sign with SHA-256, so a
message with two signatures is hashed once. Checks no signature, opens no socket, knows no SQL.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from digest.errors import ConfigError
from digest.mime import CRLF

Kind = Literal["ed25519", "rsa"]

#: Headers that a signature covers where a message has them; the rest may be added or changed on the way.
SIGNED: Final = frozenset(
    b"from reply-to to subject date message-id mime-version content-type content-transfer-encoding list-id"
    b" list-unsubscribe list-unsubscribe-post list-archive feedback-id auto-submitted".split()
)
_SELECTOR = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
_FOLDED = re.compile(rb"\r\n(?=[ \t])")
_BLANKS = re.compile(rb"[ \t]+")
_LINE = 72
_PKCS1, _SHA256 = padding.PKCS1v15(), Prehashed(SHA256())


# ----------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Key:
    """A private key and the selector its public half stands under. Shows nothing secret when printed."""

    selector: str
    private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @property
    def kind(self) -> Kind:
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    @property
    def bits(self) -> int:
        return self.private.key_size if isinstance(self.private, rsa.RSAPrivateKey) else 256

    @property
    def record(self) -> str:
        """The text of the TXT record at ``SELECTOR._domainkey.DOMAIN`` (RFC 6376 §3.6.1)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            public = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)  # RFC 8463 §4.2
        return f"v=DKIM1; k={self.kind}; p={base64.b64encode(public).decode('ascii')}"

    def name(self, domain: str) -> str:
        """Where that record belongs."""
        return f"{self.selector}._domainkey.{domain}"

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, _PKCS1, _SHA256)
        return self.private.sign(digest)  # RFC 8463 §3: Ed25519 of the hash


def new_key(kind: Kind) -> bytes:
    """A fresh private key as the text of its file (PKCS #8, PEM)."""
    private = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def checked_selector(selector: str) -> str:
    """*selector*, or a ConfigError: it becomes a part of a name in DNS."""
    if not _SELECTOR.fullmatch(selector) or len(selector) > 63:
        raise ConfigError(f"dkim: {selector!r} is no selector; use letters, digits and hyphens, like s2027")
    return selector


def read_key(selector: str, file: Path) -> Key:
    """Read a private key. ConfigError with one sentence where it cannot sign."""
    checked_selector(selector)
    try:
        text = file.read_bytes()
    except OSError as e:
        raise ConfigError(f"dkim.keys: {file} of selector {selector} cannot be read: {e.strerror}") from None
    if fault := _fault(text):
        raise ConfigError(
            f"dkim.keys: {file} of selector {selector} {fault}; make one that can with `digest dkim keygen {selector}`"
        )
    private = load_pem_private_key(text, None)
    assert isinstance(private, (ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey))
    return Key(selector, private)


def read_keys(files: Iterable[tuple[str, Path]]) -> list[Key]:
    """The keys of (selector, file), in that order. ConfigError with every problem."""
    keys, problems = [], []
    for selector, file in files:
        try:
            keys.append(read_key(selector, file))
        except ConfigError as e:
            problems += e.problems
    if problems:
        raise ConfigError(problems)
    return keys


def _fault(text: bytes) -> str | None:
    """Why this file's text is no key that can sign; None: it is one."""
    try:
        private = load_pem_private_key(text, None)
    except TypeError:
        return "is locked with a passphrase"
    except (ValueError, UnsupportedAlgorithm):
        return "is a public key, not a private one" if b"PUBLIC KEY" in text else "is no private key in PEM"
    if isinstance(private, rsa.RSAPrivateKey):
        # RFC 8301 §3.2: what receivers must be able to check
        return None if 1024 <= private.key_size <= 4096 else f"has {private.key_size} bits; RSA takes 1024 to 4096"
    return None if isinstance(private, ed25519.Ed25519PrivateKey) else "is neither an Ed25519 nor an RSA key"


# ----------------------------------------------------------------------------- signatures


class Signer:
    """Signs for one domain. Shared between threads; signing changes nothing.

    Of several keys of one kind the first signs: a new one stands behind it until DNS knows it, an old one stays
    behind it as long as mail signed with it is on the way.
    """

    def __init__(self, domain: str, keys: Sequence[Key]) -> None:
        self.domain = domain
        first: dict[Kind, Key] = {}
        for key in keys:
            first.setdefault(key.kind, key)
        self.keys = tuple(first.values())

    def begin(self, headers: bytes, body: bytes = b"") -> Begun:
        """Take what messages share: whole header lines, and how their bodies begin."""
        return Begun(self, headers, body)

    def lines(self, digest: hashlib._Hash, names: bytes, body_hash: bytes, at: datetime) -> bytes:
        """A DKIM-Signature for each key. *digest*: over the canonical headers of *names*, without an end."""
        # RFC 8301 §3.1: SHA-256 alone
        tail = b"\r\n d=%b; s=%b; t=%d;\r\n h=%b;\r\n bh=%b;\r\n b="
        found = []
        for key in self.keys:
            said = b"v=1; a=%b-sha256; c=relaxed/simple;" % key.kind.encode("ascii") + tail % (
                self.domain.encode("ascii"), key.selector.encode("ascii"), at.timestamp(), names, body_hash,
            )  # fmt: skip
            whole = digest.copy()
            # RFC 6376 §3.7: its own header with an empty b= ends what is hashed, and has no line end
            whole.update(b"dkim-signature:" + said.replace(CRLF, b""))
            signature = base64.b64encode(key.sign(whole.digest()))
            folded = b"\r\n ".join(signature[i : i + _LINE] for i in range(0, len(signature), _LINE))
            found.append(b"DKIM-Signature: %b%b\r\n" % (said, folded))
        return b"".join(found)


class Begun:
    """The shared part of messages, hashed; `sign` goes on from there with what is one message's own."""

    __slots__ = ("_body", "_headers", "_names", "_signer", "_start")

    def __init__(self, signer: Signer, headers: bytes, body: bytes) -> None:
        self._signer, self._start = signer, body
        self._names, canonical = _relaxed(headers)
        self._headers, self._body = hashlib.sha256(canonical), hashlib.sha256(body)

    def sign(self, headers: bytes, body: Sequence[bytes], at: datetime) -> bytes:
        """Signature lines for a message of the shared part, these *headers* and the rest of its *body*, in pieces."""
        names, canonical = _relaxed(headers)
        digest = self._headers.copy()
        digest.update(canonical)
        # RFC 6376 §5.4.2: From once more than it occurs, so that a second one breaks the signature
        covered = _folded([*self._names, *names, b"from"])
        return self._signer.lines(digest, covered, base64.b64encode(self._body_hash(body)), at)

    def _body_hash(self, body: Sequence[bytes]) -> bytes:
        """RFC 6376 §3.4.3: exactly one line end at the end, however many there are."""
        last = body[-1] if body else b""
        if last.endswith(CRLF) and last != CRLF and not last.endswith(CRLF + CRLF):
            hashed = self._body.copy()
            for piece in body:
                hashed.update(piece)
            return hashed.digest()
        whole = self._start + b"".join(body)
        return hashlib.sha256(whole.rstrip(CRLF) + CRLF).digest()


def _relaxed(headers: bytes) -> tuple[list[bytes], bytes]:
    """(names of the signed ones, their canonical lines) of whole header lines (RFC 6376 §3.4.2)."""
    names, lines = [], []
    for line in _FOLDED.sub(b"", headers).split(CRLF):
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t").lower()
        if colon and name in SIGNED:
            names.append(name)
            lines.append(b"%b:%b\r\n" % (name, _BLANKS.sub(b" ", value).strip(b" ")))
    return names, b"".join(lines)


def _folded(names: Iterable[bytes]) -> bytes:
    """The value of ``h=``, folded between names."""
    lines = [b""]
    for name in names:
        if len(lines[-1]) + len(name) > _LINE:
            lines.append(b"")
        lines[-1] += name + b":"
    return b"\r\n ".join(lines)[:-1]
