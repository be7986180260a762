"""the look of a mail: more of the brand, texts and link parameters of a digest, the gates of an edition"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Defaults stay: the release before writes rows without these columns while it is being replaced.
    for name in ("intro", "closing", "sponsor", "link_params"):
        op.add_column("digests", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("editions", sa.Column("gates", sa.JSON(), nullable=False, server_default="[]"))
    for name in ("site_url", "logo_dark_url"):
        op.add_column("publication", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("publication", sa.Column("logo_width", sa.SmallInteger(), nullable=False, server_default="0"))
    op.add_column("publication", sa.Column("font", sa.String(length=16), nullable=False, server_default="mixed"))
    op.add_column("publication", sa.Column("social_links", sa.JSON(), nullable=False, server_default="[]"))
