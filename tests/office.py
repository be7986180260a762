"""A publisher's desk for tests: an editor, and a sender into an outbox in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from digest import ledger
from digest.audience import Keys
from digest.db import Database
from digest.delivery.memory import MemoryPool, Outbox
from digest.editions import Editor, Preview, Setup, preview
from digest.models import Edition
from digest.rendering import Renderer
from digest.sending import LedgerStore, Post, Sender, Sent, Shares, run_async
from tests import build


@cache
def renderer() -> Renderer:
    """Compiling takes a moment: once a process."""
    return Renderer()


POST = Post("https://news.example", "news.example", Keys(b"t" * 32, b"m" * 32))


@dataclass
class Office:
    db: Database
    live: bool = True
    outbox: Outbox = field(default_factory=Outbox)
    connections: int = 4
    shares: Shares | None = None

    @property
    def editor(self) -> Editor:
        return Editor(self.db, renderer(), POST, live=self.live)

    @property
    def setup(self) -> Setup:
        return Setup(self.db, renderer())

    def preview(self, slug: str, at: datetime, email: str | None = None) -> Preview:
        return preview(self.db, renderer(), POST, slug, at, live=self.live, email=email)

    def store(self, *, impatient: bool = False) -> LedgerStore:
        return LedgerStore(self.db, renderer(), POST, live=self.live, impatient=impatient, shares=self.shares)

    def send(self, *, impatient: bool = False, store: LedgerStore | None = None) -> Sent:
        store = store or self.store(impatient=impatient)

        async def main() -> Sent:
            sender = Sender(
                store,
                lambda grants: MemoryPool(self.outbox, grants, connections=self.connections),
                connections=self.connections, shares=self.shares, patient=impatient,
            )  # fmt: skip
            return await sender.run()

        sent: Sent = run_async(main)
        self.editor.finish()
        return sent

    def tick(self, at: datetime, *, send: bool = True) -> list[int]:
        touched = self.editor.tick(at)
        if send:
            self.send()
        return touched

    def editions(self) -> list[Edition]:
        with self.db.reading() as session:
            return [e for e, _ in ledger.editions.editions(session)]

    def counts(self, edition_id: int) -> dict[str, int]:
        with self.db.reading() as session:
            counts = ledger.outcome_counts(session, session.get_one(Edition, edition_id))
        return {k: v for k, v in counts.items() if v}

    def inboxes(self) -> dict[str, int]:
        """Address → mails that arrived."""
        count: dict[str, int] = {}
        for posted in self.outbox.posted:
            count[posted.rcpt.decode()] = count.get(posted.rcpt.decode(), 0) + 1
        return count


def newsroom(db: Database, *, readers: int = 3, articles: int = 4, **digest: Any) -> list[str]:
    """One digest ``morning`` at 07:00 UTC, readers, and articles of the last hours. Returns the readers' addresses."""
    with db.transaction() as session:
        build.publication(session)
        morning = build.digest(session, created_at=build.T, **digest)
        ledger.editions.add_clock(session, build.schedule_of(session, morning).id, "UTC")
        for i in range(articles):
            build.article(session, title=f"Story {i + 1}", categories=["Africa"], age=timedelta(hours=i + 6))
        addresses = [f"reader{i}@example.org" for i in range(readers)]
        for address in addresses:
            build.subscription(session, morning, build.subscriber(session, address))
        return addresses


def commands(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Runs a command on the database at *url*; what it prints with ``--json``, line by line."""
    from click.testing import CliRunner

    from digest.cli import cli

    monkeypatch.setenv("DIGEST_DATABASE__URL", url)
    monkeypatch.setenv("DIGEST_DATA_DIR", str(folder))
    (folder / "none.toml").touch()

    def said(*words: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(cli, ["--config", str(folder / "none.toml"), *words, "--json"])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    return said


def arrivals(office: Office, addresses: Iterable[str]) -> list[int]:
    inboxes = office.inboxes()
    return [inboxes.get(a, 0) for a in addresses]
