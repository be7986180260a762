"""rates that machines keep together"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('rate_shares',
    sa.Column('key', sa.String(length=320), nullable=False),
    sa.Column('worker', sa.String(length=200), nullable=False),
    sa.Column('slot', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), nullable=False),
    sa.Column('amount', sa.Integer(), nullable=False),
    sa.Column('until', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('key', 'worker', name=op.f('pk_rate_shares'))
    )
    with op.batch_alter_table('rate_shares', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_rate_shares_until'), ['until'], unique=False)

