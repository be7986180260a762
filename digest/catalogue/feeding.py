"""What the feeds of articles hold: the newest, pages of the open month, months as archives; each story once if asked.

Lengths count back from the newest article, never from a clock: the same data gives the same feed. A month is closed
once the feed has an article of a later one. Nothing here knows formats or addresses.

    scope      which articles a feed is about: a condition, or why there is no such feed
    feed_part  its newest articles, a page, or a month, with what comes before and after
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Row, Select, and_, false, func, select, true
from sqlalchemy.orm import Session

from digest.catalogue.reading import speaks, topics_of
from digest.catalogue.shared import chunks
from digest.catalogue.topics import Tree, find_topic
from digest.models import Article, ArticleAuthor, ArticleTopic, Source
from digest.types import ArticleStatus, Enclosure, FeedItem, FeedSelector, Image, TopicKind, TopicRef

#: All of the last hours, but at least and at most so many.
HOURS, LEAST, MOST = 48, 20, 300
#: Of a page, and how many pages there may be: further back lead the months.
PAGE, PAGES = 100, 50
#: Most articles in the archive of a month.
MONTH_MOST = 5_000
#: Up to so many articles of a topic or author are all looked up to find the newest of them.
FEW = 3_000
#: A longer body does not enter a feed: it is not even read whole.
_BODY_READ = 500_001

_PUBLISHED = Article.status == str(ArticleStatus.PUBLISHED)
_NEWEST_FIRST = (Article.published_at.desc(), Article.id.desc())


@dataclass(frozen=True, slots=True)
class FeedPart:
    """A part of a feed, newest first. Months are ``2025-07``, None where there is none.

    ``more``: there is a further page. ``older``: the newest closed month before this part, none for a feed that shows
    all that it has. ``newer``: of a month, the next closed one. ``closed``: nothing will be added to this month.
    """

    items: tuple[FeedItem, ...]
    more: bool = False
    older: str | None = None
    newer: str | None = None
    closed: bool = False


class _Told(NamedTuple):
    """An article of a part, and the other articles of its story."""

    id: int
    published_at: datetime
    also: tuple[Row[Any], ...] = ()


class _Found(NamedTuple):
    """Articles of a part, newest first. ``whole``: there are no others."""

    told: list[_Told]
    whole: bool


class Known(dict[int, FeedItem]):
    """Articles that were read in this transaction, for feeds that share them; at most so many at a time."""

    MOST = 2_000

    def __setitem__(self, number: int, item: FeedItem) -> None:
        if len(self) >= self.MOST:
            self.clear()
        super().__setitem__(number, item)


# ----------------------------------------------------------------------------- which articles


def terms(slug: str) -> list[tuple[str, str]]:
    """``category:a+tag:b`` → its topics."""
    return [(kind, name) for kind, _, name in (term.partition(":") for term in slug.split("+"))]


def scope(session: Session, selector: FeedSelector) -> ColumnElement[bool]:
    """The articles that a feed is about; none for a topic that is hidden, merged or unknown, nor for a digest."""
    match selector.kind:
        case "all":
            return true()
        case "language":
            return speaks(selector.slug)
        case "source":
            return Article.source_id == select(Source.id).where(Source.slug == selector.slug).scalar_subquery()
        case _:
            lists = _lists(session, selector)
            return and_(*(Article.id.in_(ids) for ids in lists)) if lists else false()


def _lists(session: Session, selector: FeedSelector) -> list[Select[Any]]:
    """Of an author or of topics, the ids of their articles; an article of the feed is on every list."""
    match selector.kind:
        case "author":
            return [select(ArticleAuthor.article_id).where(ArticleAuthor.slug == selector.slug)]
        case "category" | "tag":
            return [_about(session, [(selector.kind, selector.slug)])]
        case "any":
            return [_about(session, terms(selector.slug))]
        case "every":
            return [_about(session, [term]) for term in terms(selector.slug)]
        case _:
            return []


def _shown(session: Session, selector: FeedSelector) -> ColumnElement[bool]:
    """The published ones of a feed, said so that the shorter way to them is taken, on a planner that cannot know it.

    Of few articles all are looked up and sorted: going back from the newest would pass most of the catalogue. Many are
    met soon on that way, while to look them all up would be long.
    """
    few = any(_length(session, ids) <= FEW for ids in _lists(session, selector))
    published = func.coalesce(Article.status, "") == str(ArticleStatus.PUBLISHED) if few else _PUBLISHED  # by no index
    return and_(published, scope(session, selector))


def _length(session: Session, ids: Select[Any]) -> int:
    """How long a list is, as far as it matters."""
    return session.scalar(select(func.count()).select_from(ids.limit(FEW + 1).subquery())) or 0


def _about(session: Session, wanted: Iterable[tuple[str, str]]) -> Select[Any]:
    """Articles of one of these topics, or of a category below one."""
    found = (find_topic(session, kind, slug) for kind, slug in wanted)
    topics = [topic for topic in found if topic and not topic.hidden and topic.merged_into is None]
    ids = [topic.id for topic in topics]
    if all(topic.kind == TopicKind.TAG for topic in topics):
        return _under(ids)  # nothing stands below a tag
    return _under(_with_below(session, ids))


def about_topics(session: Session, ids: Iterable[int]) -> ColumnElement[bool]:
    """Articles of one of these topics, or of a category below one."""
    return Article.id.in_(_under(_with_below(session, ids)))


def _with_below(session: Session, ids: Iterable[int]) -> set[int]:
    tree = Tree.load(session)
    return {below for topic in ids for below in tree.down(topic)}


def _under(topics: Iterable[int]) -> Select[Any]:
    return select(ArticleTopic.article_id).where(ArticleTopic.topic_id.in_(sorted(topics)))


# ----------------------------------------------------------------------------- parts


def feed_items(
    session: Session, selector: FeedSelector, *, limit_min: int = LEAST, limit_max: int = MOST, hours: int = HOURS
) -> list[FeedItem]:
    """The items of the feed itself, newest first."""
    found = _newest(session, selector, _shown(session, selector), limit_min, limit_max, hours)
    return _items(session, found.told, Known())


def feed_of(session: Session, which: ColumnElement[bool]) -> tuple[FeedItem, ...]:
    """The newest articles of any choice, each story once."""
    found = _newest(session, FeedSelector("all", stories=True), and_(_PUBLISHED, which))
    return tuple(_items(session, found.told, Known()))


def feed_part(session: Session, selector: FeedSelector, zone: ZoneInfo, known: Known | None = None) -> FeedPart | None:
    """The part that *selector* asks for, months cut by the calendar of *zone*; None if there is no such part."""
    which, known = _shown(session, selector), Known() if known is None else known
    if selector.month:
        return _month(session, selector, which, zone, known)
    live, whole = _newest(session, selector, which)
    if whole:
        return None if selector.page > 1 else FeedPart(tuple(_items(session, live, known)))
    opened = _start_of_month(_newest_date(session, which), zone)
    rest = _open_rest(session, selector, which, opened, live) if _may_have_more(live, opened) else []
    older = _month_before(session, which, opened, zone)
    if selector.page == 1:
        return FeedPart(tuple(_items(session, live, known)), more=bool(rest), older=older)
    first = (selector.page - 2) * PAGE
    page = rest[first : first + PAGE]
    if not page or selector.page > PAGES:
        return None
    more = len(rest) > first + PAGE and selector.page < PAGES
    return FeedPart(tuple(_items(session, page, known)), more=more, older=older)


def feed_months(session: Session, selector: FeedSelector, zone: ZoneInfo) -> list[str]:
    """The months that the feed has articles of, newest first, the open one included."""
    which, found = _shown(session, selector), list[str]()
    until = datetime.max.replace(tzinfo=UTC)
    while (month := _month_before(session, which, until, zone)) is not None:
        found.append(month)
        until = _limits(month, zone)[0]
    return found


def _newest(
    session: Session,
    selector: FeedSelector,
    which: ColumnElement[bool],
    least: int = LEAST,
    most: int = MOST,
    hours: int = HOURS,
) -> _Found:
    told, whole = _told(session, selector, which, true(), most)
    since = told[0].published_at - timedelta(hours=hours) if told else None
    shown = [t for n, t in enumerate(told) if n < least or (since and t.published_at >= since)]
    return _Found(shown, whole and len(shown) == len(told))


def _may_have_more(live: Sequence[_Told], opened: datetime) -> bool:
    return len(live) >= LEAST and live[-1].published_at >= opened


def _open_rest(
    session: Session, selector: FeedSelector, which: ColumnElement[bool], opened: datetime, live: Sequence[_Told]
) -> list[_Told]:
    """What the open month has besides what the feed itself shows."""
    shown = {told.id for told in live}
    told = _told(session, selector, which, Article.published_at >= opened, MOST + PAGE * PAGES).told
    return [t for t in told if t.id not in shown]


def _month(
    session: Session, selector: FeedSelector, which: ColumnElement[bool], zone: ZoneInfo, known: Known
) -> FeedPart | None:
    start, end = _limits(selector.month, zone)
    inside = and_(Article.published_at >= start, Article.published_at < end)
    found = _told(session, selector, which, inside, MONTH_MOST)
    told = [t for t in found.told if start <= t.published_at < end]
    if not told:
        return None
    opened = _start_of_month(_newest_date(session, which), zone)
    newer = _month_after(session, which, end, zone)
    return FeedPart(
        tuple(_items(session, told, known)),
        older=_month_before(session, which, start, zone),
        newer=newer if newer and _limits(newer, zone)[0] < opened else None,
        closed=start < opened,
    )


# ----------------------------------------------------------------------------- articles and stories


def _told(
    session: Session, selector: FeedSelector, which: ColumnElement[bool], inside: ColumnElement[bool], limit: int
) -> _Found:
    """Articles, or for a feed of stories the first told of each story, newest first."""
    query = select(Article.id, Article.published_at, Article.story_id).where(which, inside)
    rows = session.execute(query.order_by(*_NEWEST_FIRST).limit(limit)).all()
    if not selector.stories:
        return _Found([_Told(row.id, row.published_at) for row in rows], len(rows) < limit)
    stories = _stories(session, which, {row.story_id for row in rows})
    return _Found(sorted(stories, key=lambda t: (t[1], t[0]), reverse=True), len(rows) < limit)


_MEMBER = (
    Article.id, Article.story_id, Article.published_at, Article.canonical_url, Article.url, Article.title,
    Article.updated_at, Article.first_seen_at,
)  # fmt: skip


def _stories(session: Session, which: ColumnElement[bool], stories: Iterable[int]) -> Iterable[_Told]:
    """Each story by the first of its articles that the feed is about: what comes later changes no id."""
    members: dict[int, list[Any]] = {}
    about: set[int] = set()
    for part in chunks(sorted(stories)):
        within = and_(_PUBLISHED, Article.story_id.in_(part))
        for row in session.execute(select(*_MEMBER).where(within)):
            members.setdefault(row.story_id, []).append(row)
        about.update(session.scalars(select(Article.id).where(within, which)))
    for rows in members.values():
        rows.sort(key=lambda r: (r.published_at, r.canonical_url, r.id))
        lead = next((r for r in rows if r.id in about), None)
        if lead is not None:
            yield _Told(lead.id, lead.published_at, tuple(r for r in rows if r is not lead))


_COLUMNS = (
    Article.id, Article.feed_id, Article.url, Article.title, Article.published_at, Article.updated_at,
    func.substr(Article.body_html, 1, _BODY_READ).label("body_html"), Article.excerpt, Article.authors, Article.image,
    Article.enclosures, Article.language,
)  # fmt: skip


def _items(session: Session, told: Sequence[_Told], known: Known) -> list[FeedItem]:
    items = {t.id: known[t.id] for t in told if t.id in known}
    ids = [t.id for t in told if t.id not in items]
    topics = topics_of(session, ids)
    for part in chunks(ids):
        for row in session.execute(select(*_COLUMNS).where(Article.id.in_(part))):
            known[row.id] = items[row.id] = _item(row, topics.get(row.id, []))
    return [_with_also(items[t.id], t.also) for t in told]


def _item(article: Row[Any], topics: Sequence[Row[Any]]) -> FeedItem:
    shown = [t for t in topics if not t.hidden]
    return FeedItem(
        id=article.feed_id, url=article.url, title=article.title, published=_second(article.published_at),
        updated=_second(max(article.updated_at, article.published_at)), html=article.body_html, summary=article.excerpt,
        authors=tuple(article.authors), topics=tuple(TopicRef(TopicKind(t.kind), t.slug, t.name) for t in shown),
        image=Image(**article.image) if article.image else None, language=article.language,
        enclosures=tuple(Enclosure(*one) for one in article.enclosures or ()),
    )  # fmt: skip


def _with_also(item: FeedItem, also: Sequence[Row[Any]]) -> FeedItem:
    if not also:
        return item
    joined = max(_second(max(a.first_seen_at, a.updated_at)) for a in also)
    return replace(item, updated=max(item.updated, joined), also=tuple((a.title, a.url) for a in also))


def _second(when: datetime) -> datetime:
    return when.replace(microsecond=0)


# ----------------------------------------------------------------------------- months


def _newest_date(session: Session, which: ColumnElement[bool]) -> datetime:
    newest = select(Article.published_at).where(which).order_by(*_NEWEST_FIRST).limit(1)
    return session.execute(newest).scalar_one()


def _month_before(session: Session, which: ColumnElement[bool], until: datetime, zone: ZoneInfo) -> str | None:
    query = select(Article.published_at).where(which, Article.published_at < until)
    return _month_of(session.scalar(query.order_by(Article.published_at.desc()).limit(1)), zone)


def _month_after(session: Session, which: ColumnElement[bool], since: datetime, zone: ZoneInfo) -> str | None:
    query = select(Article.published_at).where(which, Article.published_at >= since)
    return _month_of(session.scalar(query.order_by(Article.published_at).limit(1)), zone)


def _month_of(when: datetime | None, zone: ZoneInfo) -> str | None:
    return f"{when.astimezone(zone):%Y-%m}" if when else None


def _start_of_month(when: datetime, zone: ZoneInfo) -> datetime:
    return _limits(f"{when.astimezone(zone):%Y-%m}", zone)[0]


def _limits(month: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The instants at which a local month begins and ends."""
    first = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=zone)
    after = (first + timedelta(days=32)).replace(day=1)
    return first.astimezone(UTC), after.astimezone(UTC)
