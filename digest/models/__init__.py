"""Every table, in reading order: the publication, articles in, digests, readers, editions, what was sent.

Records (catalogue, audience, ledger) read any of them and write only their own. Rules of the house that keys enforce
stand beside them. Holds no behaviour. `tables` goes up to the editions, `sent` from there.
"""

from digest.models.sent import (
    Attempt,
    Batch,
    CapturedMail,
    DeliveryEvent,
    HookNonce,
    SystemMail,
)
from digest.models.tables import (
    Article,
    ArticleAlias,
    ArticleAuthor,
    ArticleMark,
    ArticleRevision,
    ArticleTopic,
    Base,
    ConsentEvent,
    Digest,
    Edition,
    EditionArticle,
    FeedReaders,
    FeedVersion,
    Hub,
    HubFeed,
    PrivateFeed,
    PrivateFeedReaders,
    Publication,
    Schedule,
    ScheduleClock,
    Secret,
    Source,
    StoryEdit,
    StoryMember,
    Subscriber,
    Subscription,
    Suppression,
    Taste,
    Topic,
    TopicName,
    TopicSlug,
    Variant,
)

__all__ = [
    "Article",
    "ArticleAlias",
    "ArticleAuthor",
    "ArticleMark",
    "ArticleRevision",
    "ArticleTopic",
    "Attempt",
    "Base",
    "Batch",
    "CapturedMail",
    "ConsentEvent",
    "DeliveryEvent",
    "Digest",
    "Edition",
    "EditionArticle",
    "FeedReaders",
    "FeedVersion",
    "HookNonce",
    "Hub",
    "HubFeed",
    "PrivateFeed",
    "PrivateFeedReaders",
    "Publication",
    "Schedule",
    "ScheduleClock",
    "Secret",
    "Source",
    "StoryEdit",
    "StoryMember",
    "Subscriber",
    "Subscription",
    "Suppression",
    "SystemMail",
    "Taste",
    "Topic",
    "TopicName",
    "TopicSlug",
    "Variant",
]

for _table in Base.metadata.tables.values():
    if "id" in _table.c and _table.name != Publication.__tablename__:
        # A number is never used twice, on SQLite either: tokens in old mails and the history of who had what name it.
        _table.dialect_options["sqlite"]["autoincrement"] = True
