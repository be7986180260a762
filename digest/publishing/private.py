"""A reader's own feed: what their digests would show them, by the topics they chose, each story once, as it comes out.

It is made for each request and kept nowhere: an address that was taken back is worthless at once.
"""

from __future__ import annotations

from sqlalchemy import and_, false, or_
from sqlalchemy.orm import Session

from digest import audience, catalogue, rules
from digest.publishing.readings import NEVER
from digest.types import FeedView

PRIVATE = "/feeds/private/"


def read_private(session: Session, subscriber_id: int, token: str, public_url: str) -> FeedView:
    brand = catalogue.brand(session, public_url)
    wanted = []
    for digest, topics in audience.private_choices(session, subscriber_id):
        rule = rules.combine(digest.rule, digest.categories, digest.tags)
        whole = catalogue.where(session, rule)
        wanted.append(and_(whole, catalogue.about_topics(session, topics)) if topics else whole)
    items = catalogue.feed_of(session, or_(false(), *wanted))
    return FeedView(
        url=f"{public_url}{PRIVATE}{token}",
        title=f"Your topics – {brand.name}",
        home_url=f"{public_url}/",
        description=f"What you chose of {brand.name}. This address is yours alone.",
        language=brand.language,
        updated=max((item.updated for item in items), default=NEVER),
        items=items,
        icon_url=brand.logo_url,
        publisher=brand.name,
    )
