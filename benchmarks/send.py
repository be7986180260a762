"""An edition on its way: claimed, personalised, sent, every attempt committed, the window (50) kept.

The peer is Postfix's `smtp-source -d`, with as many sessions and mails of as many octets, by turns into the same
server: it reads no database, writes none, and sends every reader the same mail.

* **into smtp-sink**: Postfix's own sink, which reads mail as a mail server does. ≥ 1.0 × the peer's mails a second
  without DKIM, ≥ 0.95 × with Ed25519, ≥ 0.75 × with RSA of 2,048 bits
* **into a sink that costs next to nothing** (benchmarks/shared/sink.py), one worker process. ≥ 0.7 ×
* **our CPU a mail**, everything but the database server's; **memory** of the worker at its most, < 200 MB
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from benchmarks.shared.databases import KINDS, Databases, databases
from benchmarks.shared.export import NEWEST
from benchmarks.shared.measuring import Clock, Figure, Sample, called, turns
from benchmarks.shared.sink import fast_sink, smtp_sink
from digest.audience import Keys
from digest.db import Database
from digest.delivery.dkim import Signer, new_key, read_key
from digest.delivery.smtp import Pool
from digest.editions import Editor
from digest.models import Attempt, Batch, Subscriber, Subscription
from digest.rendering import Renderer
from digest.sending import LedgerStore, Post, Sender, Sent, run_async
from digest.types import Relay
from tests import build

SIZES = {"readers": 6_000, "turns": 5, "apart": 1}
TINY = {"readers": 30, "turns": 1, "apart": 0}

SESSIONS = 16
#: Stories in a mail: together some 60 KB and 10 KB on the wire.
STORIES = {"60 KB": 30, "10 KB": 1}
POST = Post("https://news.example", "news.example", Keys(b"t" * 32, b"m" * 32))


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    with databases() as made:
        keys = {kind: _key(made.folder, kind) for kind in ("ed25519", "rsa")}
        for kind in KINDS:
            with _edition(made, kind, sizes["readers"], STORIES["60 KB"]) as edition:
                with smtp_sink() as port:
                    yield from _figures(edition, f"60 KB from {kind} into smtp-sink", port, sizes, 1.0, cpu=True)
                    if kind == "PostgreSQL":
                        into = "60 KB from PostgreSQL into smtp-sink,"
                        yield from _figures(edition, f"{into} Ed25519", port, sizes, 0.95, keys["ed25519"])
                        yield from _figures(edition, f"{into} RSA-2048", port, sizes, 0.75, keys["rsa"])
                with fast_sink() as port:
                    yield from _figures(edition, f"60 KB from {kind} into a sink of no cost", port, sizes, 0.7)
            with _edition(made, kind, sizes["readers"], STORIES["10 KB"]) as edition, smtp_sink() as port:
                yield from _figures(edition, f"10 KB from {kind} into smtp-sink", port, sizes, None)


def _key(folder: Path, kind: Any) -> str:
    file = folder / f"{kind}.pem"
    file.write_bytes(new_key(kind))
    return str(file)


def _figures(
    edition: dict[str, Any], name: str, port: int, sizes: dict[str, int], at_least: float | None, key: str = "",
    *, cpu: bool = False,
) -> Iterator[Figure]:  # fmt: skip
    count = sizes["readers"]
    pairs = turns(
        sizes["turns"],
        lambda: _ours(edition, port, key, sizes["apart"]),
        lambda: called(
            "benchmarks.shared.sink:smtp_source",
            apart=sizes["apart"],
            port=port,
            sessions=SESSIONS,
            length=edition["octets"],
            count=count,
        ),
    )
    yield Figure(
        f"{name}, mails a second", [(count / a.wall, count / b.wall) for a, b in pairs], "/s", at_least=at_least
    )
    if cpu:
        yield Figure(f"{name}, our CPU a mail", [(a.cpu / count * 1e6, None) for a, _ in pairs], "µs")
        yield Figure(f"{name}, memory", [(a.peak_mb, None) for a, _ in pairs], "MB", at_most=200)


# ----------------------------------------------------------------------------- ours


@contextmanager
def _edition(made: Databases, kind: str, readers: int, stories: int) -> Iterator[dict[str, Any]]:
    """A released edition of so many stories, to so many readers; how long one of its mails is."""
    with made.fresh(kind) as url:
        database = Database(url)
        with database.transaction() as session:
            build.publication(session)
            digest = build.digest(session, cron="", maximum=stories, lookback_s=30 * 86400)
            for number in range(stories):
                build.article(
                    session, title=f"Headline number {number} of a day with much to tell", excerpt="A sentence. " * 19,
                    published_at=NEWEST - timedelta(hours=number + 1),
                )  # fmt: skip
            _subscribe(session, digest.id, readers)
        editor = Editor(database, Renderer(), POST, live=True)
        edition = editor.open_manual("morning", NEWEST)
        editor.compose(edition)
        editor.release(edition)
        octets = _octets(database)
        database.close()
        yield {"url": url, "edition": edition, "readers": readers, "octets": octets}


def _subscribe(session: Session, digest: int, readers: int) -> None:
    since, taste = NEWEST - timedelta(days=30), build.taste(session).id
    addresses = {n: f"reader{n}@example.net" for n in range(1, readers + 1)}
    session.execute(
        insert(Subscriber),
        [{"id": n, "address": a, "address_key": a, "created_at": since} for n, a in addresses.items()],
    )
    session.execute(
        insert(Subscription),
        [
            {"digest_id": digest, "subscriber_id": n, "taste_id": taste, "status": "active", "created_at": since,
             "confirmed_at": since}
            for n in addresses
        ],
    )  # fmt: skip


def _octets(database: Database) -> int:
    """How long the first reader's mail is."""
    store = LedgerStore(database, Renderer(), POST, live=True)
    claimed = store.claim()
    if claimed is None:
        raise RuntimeError("the edition has no readers")
    batch, mails = claimed
    octets = sum(map(len, mails.envelope(batch.recipients[0]).build()))
    store.hand_back(batch, batch.recipients)
    return octets


def _ours(edition: dict[str, Any], port: int, key: str, apart: int) -> Sample:
    _unsend(edition["url"])
    sample = called("benchmarks.send:deliver", apart=apart, url=edition["url"], port=port, key=key)
    if sample.result["answers"] != {"accepted": edition["readers"]}:
        raise RuntimeError(f"not all was accepted: {sample.result}")
    return replace(sample, wall=sample.result["wall"], cpu=sample.result["cpu"])


def _unsend(url: str) -> None:
    """As it was after its release."""
    database = Database(url)
    with database.transaction() as session:
        postgres = database.engine.dialect.name == "postgresql"
        session.execute(text("TRUNCATE attempts" if postgres else "DELETE FROM attempts"))
        session.execute(
            update(Batch).values(todo=None, wire_to=0, done=False, worker=None, attempt=0, leased_until=None)
        )
    database.close()


def deliver(url: str, port: int, key: str) -> dict[str, Any]:
    """Send all of it; answers by outcome, and all of them in the database. A worker compiles a layout once in its life,
    and has done so when the clock starts."""
    database = Database(url)
    post = replace(POST, signer=Signer(POST.mail_domain, [read_key("s", Path(key))]) if key else None)
    relay = Relay("127.0.0.1", port, connections=SESSIONS)
    renderer = Renderer()
    renderer.layout("cards")
    store = LedgerStore(database, renderer, post, live=True)
    with Clock() as clock:
        sent: Sent = run_async(Sender(store, lambda grants: Pool(relay, grants), connections=SESSIONS).run)
    with database.reading() as session:
        if session.scalar(select(func.count()).select_from(Attempt)) != sent.answers.total():
            raise RuntimeError("not every answer was recorded")
    database.close()
    answers = {result.value: count for result, count in sent.answers.items()}
    return {"answers": answers, "wall": clock.wall, "cpu": clock.cpu}
