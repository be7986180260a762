"""Runs the migrations on a connection that `digest.db.upgrade_schema` hands over; there is no alembic.ini.

Never put an ``__init__.py`` into this folder: it would hide the library of the same name from a checkout.
"""

from __future__ import annotations

import re
from typing import Any

from alembic import context
from digest.db import UtcDateTime
from digest.models import Base

#: Partitions of `attempts` (one a month) are made when an edition opens; no migration knows them.
_PARTITION = re.compile(r"attempts_\d+")
#: The queue library brings its own tables (`digest.jobs.upgrade`).
_QUEUE = "procrastinate_"


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "table" and name and (_PARTITION.fullmatch(name) or name.startswith(_QUEUE)))


def render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """A migration outlives the package: it names the plain column type, not our wrapper of it."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


connection = context.config.attributes["connection"]
if connection.dialect.name == "postgresql":  # two machines that upgrade at once take turns
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('digest schema'))")

context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    include_name=include_name,
    render_item=render_item,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
