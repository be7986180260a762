"""The demo: the whole job on the shipped sample, and the proof that killing the worker loses nothing.

    opened  → a folder of its own, emptied      prove → a judge that keeps count in this process
    perform → sample → ingest → two digests             worker, kill -9, worker, kill -9, …
              → readers → run → feeds → files           → what arrived against what was owed
    serve   → pages, feeds, worker

Nothing here ever leaves the machine: the demo catches its mail, the proof sends to its own judge, both write to
example.org alone. Reads no settings of an installation but where to put its folder. Knows how things are used, not how
they work.
"""

from __future__ import annotations

import email
import email.policy
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from io import StringIO
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

import digest
from digest import audience, catalogue, engine, ingest, ledger, schedules
from digest.bootstrap import App, build, upgrade
from digest.config import Settings
from digest.delivery.capture import CaptureServer
from digest.editions import DigestFields
from digest.errors import DigestError, UsageError
from digest.models import Attempt
from digest.paths import shipped
from digest.sending import window_for
from digest.types import CaughtMail, Result

Say = Callable[[str], None]

HOST = "127.0.0.1"
PORT = 8000
#: What marks a folder as the demo's own, and keeps two demos out of one.
MARK = ".digest-demo"
_OURS = ("digest.sqlite3", "digest.sqlite3-wal", "digest.sqlite3-shm", "sample", "feeds", "mails", "worker.log")

_BRAND = {
    "name": "Harbour Times",
    "postal_address": "1 Quay Street\nExample Harbour",
    "accent": "#0f5c6e",
    "tagline": "A demonstration with real articles. Their dates were moved, so that the newest are from today.",
    "footer_links": "Imprint=https://example.org/imprint; Privacy=https://example.org/privacy",
}
_NAMES = (
    "amara", "bram", "chloe", "daoud", "elif", "farah", "goran", "hana", "ines", "jonas", "kofi", "lena", "mateo",
    "nadia", "omar", "petra", "quentin", "rosa", "sanjay", "tove", "umut", "vera", "wanjiru", "ximena", "yusuf",
)  # fmt: skip

# ----------------------------------------------------------------------------- a folder of its own


@contextmanager
def _folder(environ: Mapping[str, str], *inside: str) -> Iterator[Path]:
    """The demo's folder, emptied of what an earlier demo left, ours alone as long as this lasts."""
    folder = Path(environ.get("DIGEST_DATA_DIR") or "var/demo", *inside).expanduser().absolute()
    if (folder / _OURS[0]).exists() and not (folder / MARK).exists():
        raise UsageError(f"{folder} holds a database that is not the demo's; set DIGEST_DATA_DIR to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / MARK).open("w") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"a demo is running in {folder}; stop it first, or set DIGEST_DATA_DIR") from None
        for name in _OURS:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield folder


def _settings(folder: Path, **overrides: object) -> Settings:
    """The shipped defaults and nothing of this machine's own: a demo beside an installation touches none of it."""
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return Settings.load(_defaults(), {}, {"data_dir": str(folder), **dotted})


def _defaults() -> Path:
    return shipped("config") / "defaults.toml"


def _free_port(wanted: int | None) -> int:
    """The port that was asked for, else the first free one."""
    for port in [wanted] if wanted else range(PORT, PORT + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise UsageError(f"port {wanted or PORT} is taken; stop what uses it, or choose another with --port")


@contextmanager
def _publisher(settings: Settings) -> Iterator[App]:
    """A publisher on an empty database, with a brand."""
    app = build(settings, check_schema=False)
    try:
        upgrade(app.db)
        with app.db.transaction() as session:
            for key, value in {**_BRAND, "timezone": _zone()}.items():
                catalogue.set_brand(session, key, value)
        yield app
    finally:
        app.close()


def _zone() -> str:
    """This machine's time zone by name, where it tells."""
    try:
        name = os.environ.get("TZ") or str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
        key = schedules.zone(name).key
        return "UTC" if key == "Etc/UTC" else key
    except UsageError:
        return "UTC"


def _read_sample(app: App, folder: Path, at: datetime) -> int:
    """The sample as a source like any other; how many articles came."""
    sample = ingest.write_sample(folder / "sample", at)
    ingest.add_source(app.db, "harbour-times", kind="wxr", location=str(sample), at=at)
    report = ingest.refresh(app.db, app.fetcher, at=at, names=["harbour-times"])[0]
    if report.errors:
        raise DigestError(f"the shipped sample cannot be read: {report.errors[0][1]}")
    return report.new


def _readers(app: App, digest: str, rows: Sequence[str], now: datetime) -> None:
    file = StringIO("email,language,format\n" + "\n".join(rows))
    file.name = "demo"  # said to be the source of their consent
    audience.import_csv(app.db, file, digest=digest, confirmed=True, now=now)


# ----------------------------------------------------------------------------- the demo


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo did, and where to look at it."""

    data_dir: str
    database: str
    articles: int
    categories: int
    tags: int
    readers: int
    shared_stories: int  # that both digests carried: who reads both has each of them once
    editions: list[dict[str, Any]]
    captured: int
    feeds: int
    mails: list[str]
    urls: dict[str, str]
    seconds: float
    dates_moved: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def told(self, *, serving: bool) -> str:
        """For people."""
        rows = [
            f"  {e['digest']:<18} {len(e['stories']):>3} stories  {e['recipients']:>4} recipients  "
            f"{e['accepted']:>4} accepted  {e['ms']:>6,} ms"
            for e in self.editions
        ]
        look = [f"  {name:<14} {url}" for name, url in self.urls.items()]
        files = {"mails": self.mails[0] if self.mails else "", "feeds": f"{self.data_dir}/feeds/feeds/all.rss"}
        program = "./run" if (_defaults().parents[1] / "run").is_file() else "digest"
        serve = f"To look at the pages: DIGEST_DATA_DIR={self.data_dir} {program} serve"
        hint = "Ctrl-C stops it." if serving else serve
        return "\n".join(
            [
                "",
                f"{self.articles:,} real articles in {self.categories} categories and {self.tags} tags. Their dates "
                "were moved so that the newest are from today.",
                f"{self.readers} readers at example.org, {self.captured} mails over SMTP into the capture server: "
                "none has left this machine.",
                "",
                *rows,
                f"  {_BOTH} readers take both; {self.shared_stories} stories went into both, to each reader once.",
                "",
                "Look at",
                *look,
                *(f"  {name:<14} {path}" for name, path in files.items()),
                f"  {'database':<14} {self.database}",
                "",
                hint,
            ]
        )


@dataclass(frozen=True, slots=True)
class Stage:
    settings: Settings
    folder: Path

    def perform(self, say: Say) -> Shown:
        """Everything but serving."""
        began, at = time.perf_counter(), datetime.now(UTC)
        with _publisher(self.settings) as app:
            say("reading the sample …")
            articles = _read_sample(app, self.folder, at)
            _add_digests(app, at)
            say("sending two digests over SMTP to the capture server …")
            editions = [_run(app, slug, at) for slug in _DIGESTS]
            say("building feeds …")
            feeds = len(app.shelf.build(self.folder / "feeds").written)
            with app.db.reading() as session:
                caught = ledger.captured(session, 1000)
                topics = Counter(row.kind for row in catalogue.topic_rows(session))
                mails = _write_mails(self.folder / "mails", [c.message for c in caught])
        return Shown(
            data_dir=str(self.folder), database=str(self.folder / _OURS[0]), articles=articles,
            categories=topics["category"], tags=topics["tag"], readers=len(_NAMES),
            shared_stories=len(set.intersection(*(set(e["stories"]) for e in editions))), editions=editions,
            captured=len(caught), feeds=feeds, mails=mails, urls=self._urls(),
            seconds=round(time.perf_counter() - began, 1),
        )  # fmt: skip

    def _urls(self) -> dict[str, str]:
        base = self.settings.public_url
        return {
            "pages": f"{base}/",
            "caught mail": f"{base}/captured",
            "archive": f"{base}/archive",
            "feeds": f"{base}/feeds/all.rss",
            "digest's feed": f"{base}/feeds/digest/{next(iter(_DIGESTS))}.atom",
        }

    def serve(self) -> int:
        from digest.serve import serve

        return serve(self.settings, HOST, self.settings.web.port)


@contextmanager
def opened(environ: Mapping[str, str], port: int | None) -> Iterator[Stage]:
    """A stage in a folder of its own, for as long as this lasts."""
    with _folder(environ) as folder:
        port = _free_port(port)
        yield Stage(_settings(folder, live=False, public_url=f"http://{HOST}:{port}", web__port=port), folder)


#: One by category with all below it, one by tag: some stories fit both.
_DIGESTS = {
    "world-today": DigestFields(name="World today", categories=("world",), schedule="0 7 * * *"),
    "politics-weekly": DigestFields(name="The week in politics", tags=("politics",), schedule="0 8 * * 1"),
}
#: Who reads which: places in _NAMES. Those in both get what fits both once.
_READ = {"world-today": range(16), "politics-weekly": range(10, 25)}
_BOTH = 6


def _add_digests(app: App, at: datetime) -> None:
    for slug, fields in _DIGESTS.items():
        app.setup().add(slug, fields, at)
    languages, plain = {5: "de", 11: "de", 15: "ar"}, (3, 9, 17)
    rows = [f"{n}@example.org,{languages.get(i, '')},{'text' * (i in plain)}" for i, n in enumerate(_NAMES)]
    for slug, places in _READ.items():
        _readers(app, slug, [rows[i] for i in places], at)


def _run(app: App, slug: str, at: datetime) -> dict[str, Any]:
    """`digest run` of that digest; its row, the number of its stories and the time it took."""
    began = time.perf_counter()
    done, edition = engine.run(app, slug, at)
    if done.trouble:
        raise DigestError(done.trouble)
    row = engine.edition_rows(app, ids=[edition])[0]
    with app.db.reading() as session:
        stories = [carried.article_id for carried in ledger.readings.carried(session, edition)]
    return {**row, "stories": stories, "ms": round((time.perf_counter() - began) * 1000)}


def _write_mails(folder: Path, messages: Sequence[bytes]) -> list[str]:
    """One caught mail of each digest as .html, .txt and .eml; the paths of the .html ones."""
    folder.mkdir(exist_ok=True)
    written: dict[str, str] = {}
    for raw in reversed(messages):
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        name = str(mail["List-Id"]).rpartition("<")[2].partition(".")[0]
        html, text = mail.get_body(("html",)), mail.get_body(("plain",))
        if name in written or html is None or text is None:
            continue
        (folder / f"{name}.eml").write_bytes(raw)
        (folder / f"{name}.txt").write_text(text.get_content(), "utf-8")
        (folder / f"{name}.html").write_text(html.get_content(), "utf-8")
        written[name] = str(folder / f"{name}.html")
    return list(written.values())


# ----------------------------------------------------------------------------- the proof

MAILS, KILLS = 2_000, 10
#: The judge's thinking time for a mail: slow enough that a kill always falls while mail is on the wire.
THINKS_S = 0.001
_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What arrived at the judge against what was owed. ``explained``: repeats with a row that says so."""

    mails: int
    kills: int
    lost: int
    repeated: int
    allowed: int
    explained: int
    strangers: int  # mails nobody owed, or a repeat under another Message-ID
    accepted: int  # as our own books have it
    seconds: float

    @property
    def holds(self) -> bool:
        kept = self.lost == 0 and self.strangers == 0 and self.accepted == self.mails
        return kept and self.repeated <= self.allowed and self.explained == self.repeated

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}

    def told(self) -> str:
        a_kill = self.allowed // max(self.kills, 1)
        return "\n".join(
            [
                f"lost       {self.lost} of {self.mails:,}; our books say {self.accepted:,} accepted",
                f"repeated   {self.repeated} in {self.kills} kills (promised: at most {a_kill} a kill)",
                f"explained  {self.explained} of {self.repeated}, each with a row that says so and the same Message-ID"
                + (f"; {self.strangers} STRANGERS" if self.strangers else ""),
                f"time       {self.seconds:.0f} s" + ("" if self.holds else "  -- A PROMISE WAS BROKEN"),
            ]
        )


class Judge:
    """Counts what arrives, in this process: it shares no fate with the worker and no books with us."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.total = 0
        self._server = CaptureServer(HOST, 0, self._take)

    def _take(self, mails: Sequence[CaughtMail]) -> None:
        time.sleep(THINKS_S * len(mails))
        for mail in mails:
            message_id = str(BytesHeaderParser().parsebytes(mail.message)["Message-ID"])
            self.seen.update((rcpt, message_id) for rcpt in mail.rcpt_to)
            self.total += 1

    def __enter__(self) -> Judge:
        self._server.start()
        self.port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def prove(environ: Mapping[str, str], say: Say, *, mails: int = MAILS, kills: int = KILLS, seed: int = 1) -> Proof:
    """Send an edition while its worker is killed -9 again and again, at moments drawn from *seed*.

    The worker is `digest tick --drain` in a process of its own, live, with the judge for its relay.
    """
    at, chance = datetime.now(UTC), random.Random(seed)  # noqa: S311 — moments, not secrets
    with _folder(environ, "kill") as folder, Judge() as judge:
        settings = _settings(folder, live=True, smtp__host=HOST, smtp__port=judge.port)
        with _publisher(settings) as app:
            edition = _release(app, folder, at, mails)
            began = time.perf_counter()
            for n in range(1, kills + 1):
                _live_and_die(settings, judge, chance, mails // (2 * kills))
                say(f"kill {n}: {judge.total:,} mails had arrived")
            _live(settings)
            return _weigh(app, edition, judge, mails, kills, time.perf_counter() - began)


def _release(app: App, folder: Path, at: datetime, mails: int) -> int:
    """An edition to so many readers, released and not yet sent."""
    _read_sample(app, folder, at)
    leap_day = "0 0 29 2 *"  # never while we look: this edition is made by hand
    app.setup().add("proof", DigestFields(name="Proof", schedule=leap_day, maximum=5), at)
    _readers(app, "proof", [f"reader{n}@example.org,," for n in range(mails)], at)
    editor = app.editor()
    edition = editor.open_manual("proof", at)
    editor.compose(edition)
    editor.release(edition)
    row = engine.edition_rows(app, ids=[edition])[0]
    if row["recipients"] != mails:
        raise DigestError(f"the proof's edition is {row['status']} with {row['recipients']} of {mails} recipients")
    return edition


def _worker(settings: Settings) -> subprocess.Popen[bytes]:
    own = {
        "DIGEST_DATA_DIR": str(settings.data_dir), "DIGEST_LIVE": "true",
        "DIGEST_SMTP__HOST": settings.smtp.host, "DIGEST_SMTP__PORT": str(settings.smtp.port),
    }  # fmt: skip
    others = {k: v for k, v in os.environ.items() if not k.startswith("DIGEST_")}
    here = str(Path(digest.__file__).parents[1])  # this very package, wherever the program was started
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", "digest", "--config", str(_defaults()), "tick", "--drain"]
    with (settings.data_dir / "worker.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 — our own command
            command, env=others | own, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
        )


def _live_and_die(settings: Settings, judge: Judge, chance: random.Random, most: int) -> None:
    """One life of a worker, ended while its mail is on the wire."""
    goal = judge.total + chance.randint(max(1, most // 5), max(2, most))
    worker = _worker(settings)
    try:
        _wait(lambda: judge.total >= goal or worker.poll() is not None, worker, settings)
        time.sleep(chance.uniform(0, 0.02))
        if worker.poll() is not None:
            raise DigestError(f"the worker ended before it was killed; {settings.data_dir / 'worker.log'} says why")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()


def _live(settings: Settings) -> None:
    """The last life: to the end."""
    worker = _worker(settings)
    try:
        _wait(lambda: worker.poll() is not None, worker, settings)
    finally:
        worker.kill()
        worker.wait()


def _wait(until: Callable[[], bool], worker: subprocess.Popen[bytes], settings: Settings) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not until():
        if time.monotonic() > deadline:
            log = settings.data_dir / "worker.log"
            raise DigestError(f"the worker (process {worker.pid}) did not get on; {log} may say why")
        time.sleep(0.002)


def _weigh(app: App, edition: int, judge: Judge, mails: int, kills: int, seconds: float) -> Proof:
    """The judge's count against our own rows."""
    owed = {f"reader{n}@example.org" for n in range(mails)}
    arrived = {rcpt for rcpt, _ in judge.seen}
    with app.db.reading() as session:
        rows = session.execute(
            select(Attempt.address, func.count())
            .where(Attempt.edition_id == edition, Attempt.outcome == Result.UNCERTAIN)
            .group_by(Attempt.address)
        )
        maybe = dict(rows.all())
    repeats = Counter({rcpt: n - 1 for (rcpt, _), n in judge.seen.items() if n > 1})
    return Proof(
        mails=mails, kills=kills, lost=len(owed - arrived), repeated=repeats.total(),
        allowed=kills * window_for(app.settings.smtp.connections),
        explained=sum(min(n, maybe.get(rcpt, 0)) for rcpt, n in repeats.items()),
        strangers=len(judge.seen) - len(arrived & owed),
        accepted=engine.edition_rows(app, ids=[edition])[0]["accepted"], seconds=round(seconds, 1),
    )  # fmt: skip
