"""what a reason names"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('edition_articles', sa.Column('detail', sa.Text(), server_default='', nullable=False))
