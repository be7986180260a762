"""texts packed fast: lz4 where PostgreSQL was built with it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Packing costs the server less so; what is stored already stays readable as it is."""
    if op.get_bind().dialect.name != 'postgresql':
        return
    offered = op.get_bind().scalar(
        sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    )
    if 'lz4' in (offered or ()):  # PostgreSQL 14 and later, if built --with-lz4
        op.execute('ALTER TABLE articles ALTER body_html SET COMPRESSION lz4, ALTER body_text SET COMPRESSION lz4')
        op.execute('ALTER TABLE batches ALTER ids SET COMPRESSION lz4, ALTER ordinals SET COMPRESSION lz4')
