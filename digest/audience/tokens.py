"""Keys that every machine of an installation shares, and the signed links made with them.

A token is bound to its purpose and carries ids alone, never an address. ``confirm`` ages; ``preferences`` and
``unsubscribe`` never do: a link in an old mail must work for as long as the mail exists. Knows nothing of readers.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from secrets import token_bytes

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode, base64_encode
from sqlalchemy import select
from sqlalchemy.orm import Session

from digest.errors import TokenInvalid
from digest.keyed import mac
from digest.models import Secret
from digest.sql import insert_new

CONFIRM_MAX_AGE_S = 30 * 86400
_FOREVER = ("preferences", "unsubscribe", "feed")
_PURPOSES = ("confirm", *_FOREVER)
_NAMES = ("token", "message_id")


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys of an installation: for tokens in links, and for Message-IDs."""

    token: bytes
    message_id: bytes

    def __repr__(self) -> str:  # keys stay out of logs and tracebacks
        return "Keys(…)"


def ensure_secrets(session: Session, now: datetime, override: bytes | None = None) -> Keys:
    """The installation's keys, made once. Of two processes that make them at the same time one wins for both.

    *override*: the content of the secret file; both keys derive from it, and the table is neither read nor written.
    """
    if override is not None:
        return Keys(*(_derive(override, name) for name in _NAMES))
    found = _stored(session)
    if missing := [name for name in _NAMES if name not in found]:
        insert_new(session, Secret, [{"name": n, "value": token_bytes(32), "created_at": now} for n in missing])
        found = _stored(session)
    return Keys(*(found[name] for name in _NAMES))


def _stored(session: Session) -> dict[str, bytes]:
    return {name: value for name, value in session.execute(select(Secret.name, Secret.value)) if name in _NAMES}


def _derive(key: bytes, name: str) -> bytes:
    return hmac.digest(key, f"digest.{name}".encode(), hashlib.sha256)


class Tokens:
    """Makes and reads tokens. Which ids a purpose carries:

    ``confirm``, ``unsubscribe``  the subscription's; ``preferences``  the subscriber's; ``feed``  that and a serial.
    """

    def __init__(self, key: bytes) -> None:
        self._confirm = URLSafeTimedSerializer(
            key, salt="digest.confirm", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
        self._keys = {purpose: _derive(key, f"token.{purpose}") for purpose in _FOREVER}

    def make(self, purpose: str, ids: Sequence[int]) -> str:
        if purpose == "confirm":
            return str(self._confirm.dumps(list(ids)))
        # Made for every recipient of every edition: a plain HMAC is five times as fast as the serialiser.
        body = ".".join([f"{i:x}" for i in ids])
        proof = mac(self._keys[purpose], body.encode())[:16]
        return f"{body}.{urlsafe_b64encode(proof).decode()[:22]}"

    def read(self, purpose: str, text: str, max_age_s: float | None = None) -> tuple[int, ...]:
        """The ids in the token; TokenInvalid says what the reader can do about it."""
        if purpose not in _PURPOSES:
            raise ValueError(f"no such purpose: {purpose}")
        if not text.isascii():
            raise _changed()
        if purpose == "confirm":
            return self._read_confirm(text, CONFIRM_MAX_AGE_S if max_age_s is None else max_age_s)
        body = text.rpartition(".")[0]
        try:
            ids = tuple(int(part, 16) for part in body.split("."))
        except ValueError:
            raise _changed() from None
        # Made anew and compared whole: one spelling alone is right.
        if min(ids) < 0 or not hmac.compare_digest(self.make(purpose, ids).encode(), text.encode()):
            raise _changed()
        return ids

    def _read_confirm(self, text: str, max_age_s: float) -> tuple[int, ...]:
        try:
            ids = self._confirm.loads(text, max_age=int(max_age_s))
        except SignatureExpired:
            raise TokenInvalid("this link has aged out; please subscribe again to get a new one") from None
        except BadSignature:
            raise _changed() from None
        # base64 spells 32 bytes in four ways (spare bits of the last character), and + reads as -: one is right.
        signature = text.rpartition(".")[2]
        if base64_encode(base64_decode(signature)).decode() != signature:
            raise _changed()
        return tuple(int(i) for i in ids)


def _changed() -> TokenInvalid:
    return TokenInvalid("this link is not complete; please use the whole link from the mail")


class Links:
    """The three links of a mail, under the public URL of the settings and nothing else."""

    def __init__(self, public_url: str, tokens: Tokens) -> None:
        self._base, self._tokens = public_url.rstrip("/"), tokens

    def confirm(self, subscription_id: int) -> str:
        return f"{self._base}/confirm/{self._tokens.make('confirm', (subscription_id,))}"

    def preferences(self, subscriber_id: int) -> str:
        return f"{self._base}/preferences/{self._tokens.make('preferences', (subscriber_id,))}"

    def unsubscribe(self, subscription_id: int) -> str:
        return f"{self._base}/unsubscribe/{self._tokens.make('unsubscribe', (subscription_id,))}"
