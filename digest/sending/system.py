"""System mails (confirmations and the like): claimed from their table, one try each, recorded one by one."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from digest import ledger
from digest.audience import invitation
from digest.catalogue import brand
from digest.db import Database
from digest.delivery.classify import next_attempt
from digest.delivery.message import Identity, message_id, system_message, verp
from digest.delivery.transport import Envelope, Transport, Wakeable
from digest.ledger.mails import WaitingMail
from digest.rendering import Renderer
from digest.sending.names import is_gone, worker_name
from digest.sending.printer import Post
from digest.types import Brand, Outcome, Result


class SystemPost:
    """Sends what waits, then returns. Implements the transport's Grants."""

    def __init__(self, database: Database, renderer: Renderer, post: Post, *, lease_s: float = 60.0) -> None:
        self._db, self._renderer, self._post = database, renderer, post
        self._lease = timedelta(seconds=lease_s)
        self._worker = worker_name()
        self._waiting: collections.deque[WaitingMail] = collections.deque()
        self._idle: list[Wakeable] = []
        self._open: set[int] = set()
        self._done: asyncio.Event | None = None
        self.accepted = 0
        self.trouble: str | None = None

    def claim(self, *, impatient: bool = False) -> bool:
        """Lease what waits; False when there is nothing."""
        with self._db.transaction() as session:
            gone = [w for w in ledger.mails.leaseholders(session) if is_gone(w)]
            mails = ledger.mails.claim_system_mails(
                session, worker=self._worker, lease=self._lease, gone=gone, impatient=impatient
            )
            self._brand: Brand = brand(session, self._post.public_url)
            self._params = {m.id: self._params_of(session, m) for m in mails}
        self._waiting.extend(mails)
        self._open = {m.id for m in mails}
        return bool(mails)

    async def run(self, connect: Callable[[SystemPost], Transport]) -> None:
        """Send what was claimed. A relay that is not there leaves it all waiting, with a sentence in ``trouble``."""
        self._done = asyncio.Event()
        transport = connect(self)
        transport.start()
        done = asyncio.ensure_future(self._done.wait())
        ends: set[asyncio.Future[Any]] = {done, transport.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        if transport.failed.done() and (error := transport.failed.exception()) is not None:
            self.trouble = str(error)
            for mail in self._waiting:
                self._record(mail, Outcome(Result.DEFERRED, text=str(error)[:500]))
        else:
            await transport.drain()
        transport.abort()

    def _record(self, mail: WaitingMail, outcome: Outcome) -> None:
        self.accepted += outcome.result is Result.ACCEPTED
        with self._db.transaction() as session:
            ledger.mails.record_system_mail(session, mail, outcome, next_attempt(mail.attempts, first=60, seed=mail.id))
        self._open.discard(mail.id)
        if not self._open and self._done is not None:
            self._done.set()

    def _params_of(self, session: Session, mail: WaitingMail) -> dict[str, str]:
        """What the template shows: of a confirmation, the digests asked for and the link."""
        subscription = int(mail.params["subscription_id"])
        asked = invitation(session, subscription)
        names = [s.digest_name for s in asked.pending] if asked else []
        return {
            "digest_name": ", ".join(names) or self._brand.name,
            "confirm_url": self._post.links.confirm(subscription),
        }

    def _build(self, mail: WaitingMail) -> list[bytes]:
        language = mail.language or self._brand.language
        rendered = self._renderer.system(mail.kind, self._brand, self._params[mail.id], language)
        sender = Identity(f"news@{self._post.mail_domain}", self._brand.name)
        message = system_message(
            sender,
            to=mail.address,
            subject=rendered.subject,
            text=rendered.text,
            html_text=rendered.html,
            message_id=message_id(  # edition 0: no edition has it
                self._post.keys.message_id, 0, mail.id, self._post.mail_domain
            ),
            date=datetime.now(UTC),
            signer=self._post.signer,
        )
        return [message]

    # -- what connections ask and say

    def next(self) -> Envelope | None:
        if not self._waiting:
            return None
        mail = self._waiting.popleft()
        return Envelope(
            # edition 0: a confirmation that bounces is about its reader, and about no edition
            mail_from=verp(0, mail.subscriber_id, self._post.keys.message_id, self._post.mail_domain).encode(),
            rcpt=mail.address.encode(),
            build=lambda: self._build(mail),
            key=mail,
        )

    def answered(self, envelope: Envelope, outcome: Outcome) -> None:
        self._record(envelope.key, outcome)

    def returned(self, envelope: Envelope) -> None:
        self._waiting.appendleft(envelope.key)
        if self._idle:
            self._idle.pop().kick()

    def idle(self, connection: Wakeable) -> None:
        self._idle.append(connection)

    def closed(self, connection: Wakeable, reason: str | None) -> None:
        """The transport opens another one when it needs it."""
