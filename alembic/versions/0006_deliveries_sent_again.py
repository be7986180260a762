"""deliveries that are sent again, counts kept"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None

_ENDS = "outcome IN ('accepted','rejected','suppressed','expired','cancelled') AND NOT reopened"


def upgrade() -> None:
    op.add_column('attempts', sa.Column('reopened', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.drop_index('uq_attempts_terminal', 'attempts')
    op.create_index(
        'uq_attempts_terminal', 'attempts', ['edition_month', 'edition_id', 'subscriber_id'], unique=True,
        sqlite_where=sa.text(_ENDS), postgresql_where=sa.text(_ENDS),
    )  # fmt: skip
    op.add_column('editions', sa.Column('counts', sa.JSON(), nullable=True))
