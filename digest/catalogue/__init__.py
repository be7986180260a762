"""The catalogue: publication and brand, sources, topics, articles and the names they go by. The face of the room.

Everything here takes a session and leaves the transaction to its caller. Owns identity (which article is this?), what
may be picked (rule → SQL), counts, what feeds are made of, and the versions that tell feeds of a change. Knows nothing
of fetching and cleaning (sources, text: work hands the results in) nor of what was sent (ledger).

    publication   the one row of the publication, checked settings of the brand
    sourcerows    where articles come from, as rows
    topics        categories and tags, their tree, spellings, counts and order
    curating      an editor's word on topics: hidden, renamed, merged
    identity      pure: the names of an article, and which article an item is
    storing       items → rows, set-wise; scheduled → published; removal
    stories       which articles tell one story, and what an editor said of it
    revisions     what an article was before
    reading       lists, months, candidates
    feeding       what feeds hold: the newest, pages, months, stories
    versions      what feeds read once a second instead of the articles
"""

from digest.catalogue.curating import hide, merge, rename, set_feed_text
from digest.catalogue.feeding import (
    FeedPart,
    Known,
    about_topics,
    feed_items,
    feed_months,
    feed_of,
    feed_part,
    scope,
    terms,
)
from digest.catalogue.publication import brand, ensure_publication, publication, set_brand
from digest.catalogue.reading import (
    ArticleRow,
    article_row,
    candidates,
    ids_of_terms,
    list_articles,
    months,
    where,
)
from digest.catalogue.revisions import Revision, revisions
from digest.catalogue.shared import take_turn
from digest.catalogue.sourcerows import (
    add_source,
    change_source,
    count_articles,
    get_source,
    list_sources,
    native_ids,
    remove_source,
)
from digest.catalogue.storing import Counts, names_that_tell_nothing, publish_due, remove, store
from digest.catalogue.topics import (
    TopicRow,
    became,
    ensure_topics,
    find_topic,
    hidden_topics,
    known_slugs,
    topic_order,
    topic_rows,
)
from digest.catalogue.versions import bump, bump_all, feed_version, feed_versions

__all__ = [
    "ArticleRow",
    "Counts",
    "FeedPart",
    "Known",
    "Revision",
    "TopicRow",
    "about_topics",
    "add_source",
    "article_row",
    "became",
    "brand",
    "bump",
    "bump_all",
    "candidates",
    "change_source",
    "count_articles",
    "ensure_publication",
    "ensure_topics",
    "feed_items",
    "feed_months",
    "feed_of",
    "feed_part",
    "feed_version",
    "feed_versions",
    "find_topic",
    "get_source",
    "hidden_topics",
    "hide",
    "ids_of_terms",
    "known_slugs",
    "list_articles",
    "list_sources",
    "merge",
    "months",
    "names_that_tell_nothing",
    "native_ids",
    "publication",
    "publish_due",
    "remove",
    "remove_source",
    "rename",
    "revisions",
    "scope",
    "set_brand",
    "set_feed_text",
    "store",
    "take_turn",
    "terms",
    "topic_order",
    "topic_rows",
    "where",
]
