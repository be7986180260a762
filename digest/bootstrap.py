"""The only place that chooses: settings → the parts of a running publisher, wired together.

``build(settings)`` opens nothing but the database's engine; ``transport`` overrides where mail goes (tests, tools).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy.orm import Session

from digest import jobs, ledger
from digest.audience import Keys, Tokens, ensure_secrets
from digest.catalogue import ensure_publication, publication
from digest.config import Settings
from digest.db import Database, require_schema, upgrade_schema
from digest.delivery.capture import CaptureServer
from digest.delivery.dkim import Signer, read_keys
from digest.delivery.smtp import Health, Pool, Relays
from digest.delivery.transport import Grants, Transport
from digest.editions import Editor, Setup
from digest.errors import SchemaBehind
from digest.fetch import Fetcher
from digest.publishing import Shelf, tell_hubs
from digest.rendering import Renderer
from digest.sending import Post, Shares
from digest.types import CaughtMail, Relay

Connect = Callable[[Grants], Transport]


@dataclass
class App:
    """A publisher, ready to work. Parts are made when first asked for."""

    settings: Settings
    db: Database
    transport: Connect | None = None
    renderer: Renderer = field(init=False)

    def __post_init__(self) -> None:
        self.renderer = renderer_of(self.settings)

    # -- who we are

    @cached_property
    def keys(self) -> Keys:
        with self.db.transaction() as session:
            return ensure_secrets(session, datetime.now(UTC), self._secret())

    def _secret(self) -> bytes | None:
        file = self.settings.secret_file
        return file.read_bytes().strip() if file else None

    @cached_property
    def tokens(self) -> Tokens:
        return Tokens(self.keys.token)

    @property
    def live(self) -> bool:
        """May mail leave? By setting, or because this database was armed for this very public URL."""
        if self.settings.live:
            return True
        with self.db.reading() as session:
            return publication(session).armed_for == self.settings.public_url

    @property
    def post(self) -> Post:
        with self.db.reading() as session:
            domain = publication(session).mail_domain
        s = self.settings
        return Post(s.public_url, domain or s.mail_domain_for(), self.keys, reads_bounces=s.reads_bounces)

    @cached_property
    def signer(self) -> Signer | None:
        """Signs mail of the mail domain; None without keys. ConfigError where a key's file cannot sign."""
        keys = read_keys(self.settings.dkim_keys())
        return Signer(self.post.mail_domain, keys) if keys else None

    @property
    def outgoing(self) -> Post:
        """`post`, with the keys that sign what leaves."""
        return replace(self.post, signer=self.signer)

    # -- the parts

    @cached_property
    def fetcher(self) -> Fetcher:
        s = self.settings
        return Fetcher(s.fetch, public_url=s.public_url)

    @cached_property
    def shelf(self) -> Shelf:
        return Shelf(self.db, self.settings.public_url, live=self.live, hubs=self.settings.feeds.hubs)

    def tell_hubs(self) -> int:
        """Tell the hubs of the settings what changed in feeds; how many pings were taken."""
        return tell_hubs(self.db, self.fetcher, self.settings.public_url, self.settings.feeds.hubs)

    def editor(self) -> Editor:
        return Editor(self.db, self.renderer, self.post, live=self.live, announce=_Jobs())

    def setup(self) -> Setup:
        return Setup(self.db, self.renderer)

    # -- where mail goes

    @cached_property
    def shares(self) -> Shares:
        """What this process may send of every rate: leased for seconds, so kept from one run to the next."""
        return Shares(self.db, self.settings.mail_rates())

    @contextmanager
    def connected(self) -> Iterator[tuple[Connect, int]]:
        """(connect, connections): the relay when live, else a capture server of this process, up while this is open."""
        if self.transport is not None:
            yield self.transport, self.settings.smtp.connections
        elif self.live:
            relays, health = self.settings.all_relays(), Health()
            orders = Counter(dict.fromkeys((relay.order for relay in relays), 0))
            for relay in relays:
                orders[relay.order] += relay.connections
            yield (lambda grants: Relays(relays, grants, health=health, gate=self.shares.gate)), max(orders.values())
        else:
            with self.capturing() as relay:
                yield (lambda grants: Pool(relay, grants)), relay.connections

    @contextmanager
    def capturing(self, port: int | None = None) -> Iterator[Relay]:
        """A capture server on loopback; what it catches is in the database before it answers 250."""
        capture = self.settings.capture
        server = CaptureServer(capture.host, capture.port if port is None else port, self._keep)
        server.start()
        try:
            base = Relay(host=capture.host, port=server.port, helo=self.settings.mail_domain_for())
            yield replace(base, connections=self.settings.smtp.connections)
        finally:
            server.stop()

    def _keep(self, mails: Sequence[CaughtMail]) -> None:
        with self.db.transaction() as session:
            ledger.store_captured(session, mails)

    def close(self) -> None:
        self.db.close()


def renderer_of(settings: Settings) -> Renderer:
    """The operator's templates above the shipped ones; what was compiled is kept beside the data."""
    own = settings.templates_dir
    return Renderer([own] if own else [], keep=settings.data_dir / "compiled")


class _Jobs:
    """Editions' news as jobs for the workers of all machines; on SQLite nobody needs to be told."""

    def opened(self, session: Session, edition_id: int) -> None:
        jobs.submit(session, jobs.Task.COMPOSE, edition_id)

    def released(self, session: Session, batches: int) -> None:
        jobs.submit_mail(session, batches)


def upgrade(database: Database) -> str | None:
    """Bring the schema, the queue's on PostgreSQL too, up to this program; the revision reached. Twice is once."""
    revision = upgrade_schema(database)
    jobs.upgrade(database)
    return revision


def build(settings: Settings, *, transport: Connect | None = None, check_schema: bool = True) -> App:
    """Wire a publisher. SchemaBehind when the database wants an upgrade."""
    if settings.database.url is None:
        Path(settings.data_dir).mkdir(mode=0o755, parents=True, exist_ok=True)
    database = Database(settings.database_url)
    try:
        if check_schema:
            _require(database)
            with database.transaction() as session:
                ensure_publication(session)
        return App(settings, database, transport)
    except BaseException:
        database.close()
        raise


def _require(database: Database) -> None:
    require_schema(database)
    if jobs.behind(database):
        raise SchemaBehind(jobs.BEHIND)
