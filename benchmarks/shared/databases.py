"""Migrated databases for benchmarks: SQLite as shipped, PostgreSQL as durable as a site would run it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digest.db import Database, upgrade_schema
from tests.postgres import Cluster

KINDS = ("SQLite", "PostgreSQL")


class Databases:
    """Hands out fresh databases of both kinds; the server is started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cluster: Cluster | None = None
        self._templates: dict[str, str] = {}
        self._made = 0

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(durable=True)
        return self._cluster

    @contextmanager
    def fresh(self, kind: str) -> Iterator[str]:
        """The URL of an empty, migrated database of that kind, dropped at the end."""
        self._made += 1
        if kind == "SQLite":
            home = self.folder / f"database-{self._made}"
            home.mkdir()
            shutil.copyfile(self._template(kind), home / "digest.sqlite3")
            yield f"sqlite:///{home}/digest.sqlite3"
            shutil.rmtree(home)
        else:
            name = self.cluster.create(self._template(kind))
            yield self.cluster.url(name)
            self.cluster.drop(name)

    def _template(self, kind: str) -> str:
        """What fresh databases of that kind are copies of: migrations run once."""
        if kind not in self._templates:
            if kind == "SQLite":
                self._templates[kind] = str(self.folder / "template.sqlite3")
                _migrate(f"sqlite:///{self._templates[kind]}")
            else:
                self._templates[kind] = self.cluster.create()
                _migrate(self.cluster.url(self._templates[kind]))
        return self._templates[kind]

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.stop()


def _migrate(url: str) -> None:
    database = Database(url)
    upgrade_schema(database)
    database.close()


@contextmanager
def databases() -> Iterator[Databases]:
    """Databases that live as long as the benchmark does."""
    folder = Path(tempfile.mkdtemp(prefix="digest-bench-"))
    made = Databases(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
