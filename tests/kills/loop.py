"""The kill loop: workers send an edition to the judge and are killed -9, again and again, at moments drawn from a seed.

    prepared   a migrated database with an edition that is released and not yet sent
    loop       workers, each a fork of this process with an installation of its own; whoever dies is replaced
      kill     when so many mails have arrived, a worker drawn by lot
      leave    now and then readers who were not granted yet unsubscribe: none of them may be written to
    weighed    the judge's ledger against our books (`checker`)

Forks, not programs, because a hundred starts of a program would take longer than all the rest; a fork runs the very
same `digest.engine.deliver` as the worker and ``digest tick --drain`` do. So this process must stay without threads and
without open connections to the database: what a worker inherits would be shared.

By hand: ``python -m tests.kills.loop --kind postgresql --mails 10000 --kills 100``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import insert, not_, select, text, update

from digest import engine, ledger
from digest import models as m
from digest.bootstrap import App, upgrade
from digest.bootstrap import build as build_app
from digest.config import Settings
from digest.db import Database
from digest.delivery.smtp import Pool
from digest.editions import Editor
from digest.errors import DigestError
from digest.rendering import Renderer
from digest.sending import run_async, window_for
from digest.types import EditionStatus
from tests import build
from tests.kills.checker import Case, Try, Verdict, check
from tests.kills.judge import Faults, Judge, life_name
from tests.kills.proxy import Proxy
from tests.kills.sabotage import BUGS, POINTS
from tests.office import POST
from tests.postgres import Cluster

PATIENCE_S = 120.0  # without a single mail, a worker's end or a kill


@dataclass(frozen=True, slots=True)
class Plan:
    """``connections``: of each worker; ``batch``: readers in one; ``leavers``: how many unsubscribe meanwhile.

    ``bug``, ``point``: of `sabotage`; at a point the first ``kills`` lives die, and nobody is killed besides.
    ``trouble``: of `TROUBLES`, so many times (``troubles``). ``window``: None for the usual one. ``think_s``: what the
    judge takes for a mail, as a relay with a disk does. ``rates``: of recipient domains, whose mail is then put off.
    """

    url: str
    mails: int
    kills: int
    workers: int = 8
    connections: int = 4
    seed: int = 1
    faults: Faults = field(default_factory=Faults)
    leavers: int = 0
    lease_s: float = 10.0
    batch: int = 500
    think_s: float = 0.002
    window: int | None = None
    bug: str | None = None
    point: str | None = None
    trouble: str | None = None
    troubles: int = 0
    rates: tuple[str, ...] = ()

    @property
    def bound(self) -> int:
        return self.window or window_for(self.connections)


def run(plan: Plan, cluster: Cluster | None = None) -> Verdict:
    """Carry a plan out on the empty, migrated database that it names; what came of it."""
    with tempfile.TemporaryDirectory(prefix="digest-kills-") as made:
        folder = Path(made)
        crew = Crew(plan, folder, cluster)
        crew.prepare()
        with (
            contextlib.ExitStack() as stack,
            Judge(folder, seed=plan.seed, faults=plan.faults, think_s=plan.think_s) as judge,
        ):
            crew.judge = judge
            if cluster and plan.trouble in ("lost_commits", "cut_off"):
                crew.proxy = stack.enter_context(Proxy(folder, cluster.home))
            began = time.monotonic()
            try:
                crew.work()
            finally:
                crew.end()
            verdict = crew.weigh()
            verdict.seconds, verdict.troubles = round(time.monotonic() - began, 1), crew.troubled
            return verdict


@dataclass
class Life:
    number: int
    pid: int


class Crew:
    """Workers and who kills them."""

    judge: Judge
    proxy: Proxy | None = None

    def __init__(self, plan: Plan, folder: Path, cluster: Cluster | None = None) -> None:
        self.plan, self.folder, self.cluster = plan, folder, cluster
        self.cut_off = 0  # senders that lost the database, or their lease, and not their lives
        self.troubled = 0
        self._chance = random.Random(plan.seed)
        self.alive: list[Life] = []
        self.killed: dict[int, int] = {}  # pid → its life
        self.pids: dict[int, int] = {}
        self.on_wire: set[int] = set()
        self.left: set[str] = set()
        self._lives = self.fallen = 0
        self._renderer = _renderer()
        (folder / "digest.toml").touch()

    # -- before

    def prepare(self) -> None:
        ledger.history.BATCH_SIZE = self.plan.batch  # this process is nobody else's
        freezing = self.plan.point == "while_released"
        self.edition = _prepared(self.plan.url, self._renderer, self.plan.mails, release=not freezing)
        if freezing:
            for life in range(1, self.plan.kills + 1):
                self._dies_releasing(life)
            database = Database(self.plan.url)
            Editor(database, self._renderer, POST, live=True).release(self.edition)
            database.close()

    def _dies_releasing(self, life: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                POINTS["while_released"](life, random.Random(self.plan.seed * 1000 + life))
                Editor(Database(self.plan.url), self._renderer, POST, live=True).release(self.edition)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it was to die while it releases"
        self.killed[pid] = -life

    # -- the work

    def work(self) -> None:
        chance, plan = self._chance, self.plan
        for _ in range(plan.workers):
            self.start()
        kills = 0 if plan.point else plan.kills
        events = sorted((chance.randrange(1, max(2, plan.mails * 9 // 10)), "kill") for _ in range(kills))
        if plan.leavers:
            events = sorted([*events, *((plan.mails * n // 8, "leave") for n in range(1, 7))])
        if plan.trouble:
            last = plan.mails * 9 // 10
            events = sorted([*events, *((last * n // plan.troubles, "trouble") for n in range(plan.troubles))])
        for goal, what in events:
            if not self._until(lambda goal=goal: self.judge.total >= goal or self.finished()):
                return
            if self.finished():
                break
            if what == "leave":
                self.leave(plan.leavers // 6)
            elif what == "trouble":
                TROUBLES[plan.trouble or ""](self)
                self.troubled += 1
            else:
                self.kill(self.victim())
        self._until(lambda: not self.alive, replace=False)

    def victim(self) -> Life:
        """One with mail on the wire, if there is any within a moment."""
        for _ in range(100):
            if busy := [life for life in self.alive if self.judge.busy(life.number)]:
                return self._chance.choice(busy)
            time.sleep(0.001)
        return self._chance.choice(self.alive)

    def _until(self, what: Callable[[], bool], *, replace: bool = True) -> bool:
        """Wait; whoever died of himself is replaced. False: nothing has happened for too long."""
        seen, deadline = (0, 0), time.monotonic() + PATIENCE_S
        while not what():
            self._reap(replace=replace)
            if (now := (self.judge.total, self._lives)) != seen:
                seen, deadline = now, time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def wait(self, seconds: float) -> None:
        """Let the others work for so long."""
        end = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > end)

    def finished(self) -> bool:
        """Nobody has anything left to do: every worker ended by itself."""
        return not self.alive

    def start(self) -> Life:
        self._lives += 1
        number = self._lives
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = live(self._seen_by(number), self.folder, number, self.judge.port, self._renderer)
            except BaseException as e:
                print(f"life {number}: {type(e).__name__}: {str(e).partition(chr(10))[0]}", file=sys.stderr)
            finally:
                os._exit(code)
        self.pids[pid] = number
        self.alive.append(Life(number, pid))
        return self.alive[-1]

    def _seen_by(self, number: int) -> Plan:
        """The plan as that life has it: where it finds the database."""
        if self.proxy is None or (self.plan.trouble == "cut_off" and number % 2):
            return self.plan
        return dataclasses.replace(self.plan, url=self.plan.url.partition("=")[0] + f"={self.proxy.folder}")

    def kill(self, life: Life) -> None:
        os.kill(life.pid, signal.SIGSTOP)  # so that what is on the wire can be looked at
        if self.judge.busy(life.number):
            self.on_wire.add(life.number)
        os.kill(life.pid, signal.SIGKILL)
        os.waitpid(life.pid, 0)
        self.alive.remove(life)
        self.killed[life.pid] = life.number
        self.start()

    def _reap(self, *, replace: bool) -> None:
        """Lives that ended: by themselves with nothing left to do; else by a fault, or where sabotage had them die."""
        for life in [*self.alive]:
            pid, status = os.waitpid(life.pid, os.WNOHANG)
            if pid:
                self.alive.remove(life)
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    self.killed[life.pid] = life.number
                self.fallen += code > 0
                if code != 0:
                    self.start()

    def end(self) -> None:
        for life in self.alive:
            os.kill(life.pid, signal.SIGKILL)
            os.waitpid(life.pid, 0)

    # -- readers who leave

    def leave(self, count: int) -> None:
        """Some readers who were neither granted nor answered yet unsubscribe; ours to know exactly who those are."""
        database = Database(self.plan.url)
        with database.transaction() as session:
            if not database.is_sqlite:  # a group that is being written must end first, and later ones see us
                session.execute(text("LOCK TABLE batches IN EXCLUSIVE MODE"))
            waiting = _ungranted(session, self.edition)
            chosen = self._chance.sample(waiting, min(count, len(waiting)))
            session.execute(update(m.Subscription).where(m.Subscription.subscriber_id.in_(chosen)).values(
                status="unsubscribed"))  # fmt: skip
            rows = session.scalars(select(m.Subscriber.address).where(m.Subscriber.id.in_(chosen)))
            self.left |= set(rows)
        database.close()

    # -- after

    def weigh(self) -> Verdict:
        database = Database(self.plan.url)
        try:
            with database.reading() as session:
                status = session.get_one(m.Edition, self.edition).status
                owed = set(session.scalars(select(m.Subscriber.address)))
                rows = session.execute(
                    select(m.Attempt.address, m.Attempt.attempt, m.Attempt.outcome, m.Attempt.worker, m.Attempt.text)
                )
                tries = [
                    Try(rcpt, n, outcome, self._life_of(worker), died=said.startswith("the worker died"))
                    for rcpt, n, outcome, worker, said in rows
                ]
        finally:
            database.close()
        return check(
            Case(
                owed, tries, self.judge.entries(), {life_name(n) for n in self.killed.values()},
                {life_name(n) for n in self.on_wire}, self.left,
                window=self.plan.bound, finished=status == EditionStatus.FINISHED, fallen=self.fallen,
                cut_off=self.cut_off,
            )
        )  # fmt: skip

    def _life_of(self, worker: str | None) -> str | None:
        number = self.pids.get(int(worker.rsplit(":", 3)[1])) if worker else None
        return life_name(number) if number else None


def _ungranted(session: Any, edition: int) -> list[int]:
    """Readers in open batches who were not granted to the wire and have no attempt yet."""
    tried = set(session.scalars(select(m.Attempt.subscriber_id).where(m.Attempt.edition_id == edition)))
    waiting: list[int] = []
    rows = session.execute(
        select(m.Batch.ids, m.Batch.todo, m.Batch.wire_to).where(m.Batch.edition_id == edition, not_(m.Batch.done))
    )
    for packed, todo, wire_to in rows:
        ids = ledger.history.unpack_ids(packed)
        places = ledger.batches.unpack_positions(todo) if todo is not None else range(len(ids))
        waiting += [ids[p] for p in places[wire_to:] if ids[p] not in tried]
    return sorted(waiting)


# ----------------------------------------------------------------------------- before


@cache
def _renderer() -> Renderer:
    """Compiling takes a moment: once for all forks of this process."""
    return Renderer()


def _prepared(url: str, renderer: Renderer, mails: int, *, release: bool) -> int:
    """As `prepare`; on SQLite once for all plans that want the same: the others get a copy of the file."""
    file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else None
    key = mails, release, ledger.history.BATCH_SIZE
    if file and key in _COPIES:
        edition, copy = _COPIES[key]
        file.write_bytes(copy)
        return edition
    database = Database(url)
    edition = prepare(database, renderer, mails, release=release)
    database.close()
    if file:
        _COPIES[key] = edition, file.read_bytes()
    return edition


_COPIES: dict[tuple[int, bool, int], tuple[int, bytes]] = {}


def prepare(database: Database, renderer: Renderer, mails: int, *, release: bool = True, **digest: Any) -> int:
    """A digest with so many readers and an edition of it, released and not yet sent; its id."""
    at = datetime.now(UTC)
    with database.transaction() as session:
        build.publication(session)
        proof = build.digest(session, "proof", cron="", created_at=at - timedelta(days=1), **digest)
        for n in range(3):
            build.article(session, published_at=at - timedelta(hours=2 + n))
        readers(session, proof, mails, at)
    editor = Editor(database, renderer, POST, live=True)
    edition = editor.open_manual("proof", at)
    editor.compose(edition)
    if release:
        editor.release(edition)
    return edition


def readers(session: Any, digest: m.Digest, count: int, at: datetime) -> None:
    """So many active subscriptions, by two statements."""
    taste = build.taste(session).id
    people = [{"address": f"reader{n}@example.org", "address_key": f"reader{n}@example.org", "created_at": at}
              for n in range(count)]  # fmt: skip
    session.execute(insert(m.Subscriber), people)
    ids = session.scalars(select(m.Subscriber.id).order_by(m.Subscriber.id)).all()
    session.execute(
        insert(m.Subscription),
        [{"digest_id": digest.id, "subscriber_id": i, "schedule_id": None, "taste_id": taste, "status": "active",
          "created_at": at, "confirmed_at": at, "zone": "", "dress": 0} for i in ids],
    )  # fmt: skip


# ----------------------------------------------------------------------------- a life


@contextlib.contextmanager
def installation(plan: Plan, folder: Path, port: int, renderer: Renderer) -> Iterator[App]:
    """What a worker process has: settings, a database, templates that are compiled already."""
    settings = Settings.load(
        folder / "digest.toml",
        {
            "DIGEST_DATABASE__URL": plan.url, "DIGEST_DATA_DIR": str(folder), "DIGEST_LIVE": "true",
            "DIGEST_SMTP__HOST": "127.0.0.1", "DIGEST_SMTP__PORT": str(port),
            "DIGEST_SMTP__CONNECTIONS": str(plan.connections), "DIGEST_WORKER__LEASE_S": str(plan.lease_s),
            "DIGEST_PUBLIC_URL": "https://news.example", "DIGEST_WORKER__WINDOW": str(plan.window or ""),
            "DIGEST_RATES__DOMAINS": ",".join(plan.rates),
        },
    )  # fmt: skip
    app = build_app(settings, check_schema=False)
    app.renderer = renderer
    try:
        yield app
    finally:
        app.close()


def live(plan: Plan, folder: Path, number: int, port: int, renderer: Renderer) -> int:
    """One life of a worker: until nothing is left to send. The exit code."""
    logging.disable(logging.CRITICAL)
    _sabotage(plan, number)
    with installation(plan, folder, port, renderer) as app:
        relay = dataclasses.replace(app.settings.all_relays()[0], helo=life_name(number))

        async def main() -> None:
            more = True
            while more:
                with contextlib.suppress(DigestError):  # the lease or the database is lost: as the worker, try again
                    await engine.deliver(
                        app, lambda g: Pool(relay, g), plan.connections, engine.Pass(), drain=not plan.rates
                    )
                    await asyncio.to_thread(app.editor().finish)
                    more = await asyncio.to_thread(_open, app)
                await asyncio.sleep(0.05)

        run_async(main)
    return 0


def _sabotage(plan: Plan, number: int) -> None:
    chance = random.Random(plan.seed * 1000 + number)
    if plan.bug:
        BUGS[plan.bug](number, chance)
    if plan.point and number <= plan.kills and plan.point != "while_released":
        POINTS[plan.point](number, chance)


def _open(app: App) -> bool:
    with app.db.reading() as session:
        return bool(ledger.editions.open_batches(session, True)) or bool(
            session.scalar(select(m.Edition.id).where(m.Edition.status == EditionStatus.SENDING).limit(1))
        )


# ----------------------------------------------------------------------------- what else goes wrong


def _restart(crew: Crew) -> None:
    assert crew.cluster
    crew.cut_off += len(crew.alive)
    crew.cluster.restart()


def _terminate(crew: Crew) -> None:
    """One back end of the workers' is ended."""
    assert crew.cluster
    crew.cut_off += 1
    name = crew.plan.url.partition("@/")[2].partition("?")[0]
    crew.cluster.sql(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
        f" AND datname = '{name}' ORDER BY random() LIMIT 1) AS one"
    )


def _freeze(crew: Crew) -> None:
    """A worker stands still for twice its lease, and then goes on as if nothing had been.

    On SQLite it may hold the one lock that there is for writing, and all leases end with its own.
    """
    life = crew.victim()
    crew.cut_off += 1 if crew.cluster else len(crew.alive)
    os.kill(life.pid, signal.SIGSTOP)
    crew.wait(2 * crew.plan.lease_s)
    if life in crew.alive:
        os.kill(life.pid, signal.SIGCONT)


def _lost_commit(crew: Crew) -> None:
    assert crew.proxy
    proxy = crew.proxy
    crew.cut_off += 1
    proxy.lose_a_commit()
    crew._until(lambda: not proxy.waits or crew.finished())


def _cut_off(crew: Crew) -> None:
    """Half of the workers lose sight of the database for longer than their leases, and find it again."""
    assert crew.proxy
    crew.cut_off += sum(life.number % 2 == 0 for life in crew.alive)
    crew.proxy.stop()
    crew.wait(1.5 * crew.plan.lease_s)
    crew.proxy.heal()


TROUBLES: dict[str, Callable[[Crew], None]] = {
    "restart": _restart, "terminate": _terminate, "freeze": _freeze, "lost_commits": _lost_commit, "cut_off": _cut_off
}  # fmt: skip

# ----------------------------------------------------------------------------- by hand


def main() -> None:
    os.environ["SPAMASSASSIN"] = ""  # it has nothing to say about this, and takes a second to say so
    parser = argparse.ArgumentParser("python -m tests.kills.loop")
    for name, default in (("mails", 10_000), ("kills", 100), ("workers", 8), ("connections", 4), ("seed", 1),
                          ("leavers", 120), ("batch", 500)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lease-s", type=float, default=10.0)
    parser.add_argument("--think-s", type=float, default=0.002)
    parser.add_argument("--trouble", choices=TROUBLES)
    parser.add_argument("--troubles", type=int, default=0)
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--point", choices=POINTS)
    parser.add_argument("--kind", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--plans", action="store_true", help="read plans from stdin instead, a JSON object a line")
    given = vars(parser.parse_args())
    if given.pop("plans"):
        for line in sys.stdin:
            plan = json.loads(line)
            _tell(run(Plan(**plan | {"faults": Faults(**plan.get("faults", {}))})))
        return
    with migrated(given.pop("kind")) as (url, cluster):
        _tell(run(Plan(url, **given), cluster))


def _tell(verdict: Verdict) -> None:
    print(json.dumps(dataclasses.asdict(verdict)), flush=True)


@contextlib.contextmanager
def migrated(kind: str) -> Iterator[tuple[str, Cluster | None]]:
    """An empty, migrated database that lives as long as this, and the server that is to be tormented."""
    cluster = Cluster(durable=True) if kind == "postgresql" else None
    try:
        with tempfile.TemporaryDirectory(prefix="digest-kills-") as folder:
            url = cluster.url(cluster.create()) if cluster else f"sqlite:///{folder}/digest.sqlite3"
            database = Database(url)
            upgrade(database)
            database.close()
            yield url, cluster
    finally:
        if cluster:
            cluster.stop()


if __name__ == "__main__":
    main()
