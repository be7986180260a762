"""What feeds there are, how each stands in the database, and what it holds. Reads; changes nothing, keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from digest import catalogue, ledger
from digest.feeds import FORMATS
from digest.models import Article, ArticleAuthor, Digest, Edition, FeedVersion, Publication, Topic
from digest.types import ArticleStatus, Brand, EditionPage, FeedItem, FeedSelector, FeedView, StoryCard

#: Editions in a digest's feed.
EDITIONS = 30
#: When a feed without items was updated.
NEVER = datetime(2000, 1, 1, tzinfo=UTC)

_SECOND = timedelta(seconds=1)


# ----------------------------------------------------------------------------- names


def selector_of(path: str) -> tuple[FeedSelector, str] | None:
    """``/feeds/tag/climate.rss`` (decoded) → what it asks for and the format; None if no feed can have that name."""
    stem, dot, extension = path.removeprefix("/feeds/").rpartition(".")
    if not dot or not path.startswith("/feeds/") or extension not in FORMATS:
        return None
    if stem == "all":
        return FeedSelector("all"), extension
    kind, _, slug = stem.partition("/")
    if kind not in ("category", "tag", "author", "digest") or not slug or len(slug) > 200 or "\x00" in slug:
        return None
    return FeedSelector(cast(Any, kind), slug), extension


def stem_of(selector: FeedSelector) -> str:
    """The feed's path without its extension, decoded."""
    return "/feeds/all" if selector.kind == "all" else f"/feeds/{selector.kind}/{selector.slug}"


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed that exists. ``url``: its address without an extension, percent-encoded."""

    selector: FeedSelector
    title: str
    url: str

    def urls(self) -> dict[str, str]:
        """Its address in each format."""
        return {name: f"{self.url}.{name}" for name in FORMATS}


@dataclass(frozen=True, slots=True)
class FeedLink:
    """One autodiscovery ``<link>`` of a page."""

    rel: str
    type: str
    title: str
    href: str


def autodiscovery(feeds: Iterable[Feed]) -> list[FeedLink]:
    """The ``<link>`` elements by which a page names its feeds, in each format."""
    return [
        FeedLink("alternate", fmt.media_type, f"{feed.title} ({fmt.name})", f"{feed.url}.{name}")
        for feed in feeds
        for name, fmt in FORMATS.items()
    ]


# ----------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Marks:
    """What is read once a second: nothing that a feed shows can change without one of these."""

    version: int
    editions: tuple[object, ...]
    brand: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a feed stands in the database: a new key means that its bytes may have changed."""

    key: tuple[object, ...]
    title: str
    changed: datetime | None


def read_marks(session: Session) -> Marks:
    """Read everything in one statement, each part of it by an index or from a single row."""
    parts = [
        select(FeedVersion.version).where(FeedVersion.topic_id == 0),
        select(func.max(Edition.id)),
        select(func.max(Edition.released_at)),
        select(func.max(Edition.finished_at)),
        *(
            select(column).where(Publication.id == 1)
            for column in (Publication.name, Publication.language, Publication.logo_url, Publication.armed_for)
        ),
    ]
    version, *rest = session.execute(select(*(part.scalar_subquery() for part in parts))).one()
    return Marks(version or 0, tuple(rest[:3]), tuple(rest[3:]))


def _version(session: Session, row: int) -> tuple[int, datetime | None]:
    found = session.execute(
        select(FeedVersion.version, FeedVersion.changed_at).where(FeedVersion.topic_id == row)
    ).one_or_none()
    return (found[0], found[1]) if found else (0, None)


def _topic_standing(session: Session, selector: FeedSelector) -> Standing | None:
    topic = catalogue.find_topic(session, selector.kind, selector.slug)
    if topic is None or topic.slug != selector.slug or topic.hidden or topic.merged_into is not None:
        return None
    version, changed = _version(session, topic.id)
    return Standing((topic.id, version), topic.name, changed)


class Gone(NamedTuple):
    """Why there is no such feed any more, and the feed that has taken its place; None: nothing has."""

    now: FeedSelector | None


def whereabouts(session: Session, selector: FeedSelector) -> Gone | None:
    """Where the feed of a topic went that was renamed, merged or hidden; None if nothing became of it."""
    if selector.kind not in ("category", "tag"):
        return None
    topic = catalogue.find_topic(session, selector.kind, selector.slug)
    if topic is not None and topic.merged_into is not None:
        topic = session.get(Topic, topic.merged_into)
    if topic is None or (topic.slug == selector.slug and not topic.hidden):
        return None
    return Gone(None if topic.hidden else FeedSelector(selector.kind, topic.slug))


def _author_standing(session: Session, selector: FeedSelector) -> Standing | None:
    """An author has no version of their own: the whole catalogue's stands for it."""
    name = session.scalar(
        select(ArticleAuthor.name)
        .join(Article, Article.id == ArticleAuthor.article_id)
        .where(ArticleAuthor.slug == selector.slug, Article.status == ArticleStatus.PUBLISHED)
        .order_by(Article.published_at.desc(), Article.feed_id)
        .limit(1)
    )
    if name is None:
        return None
    version, changed = _version(session, 0)
    return Standing((version,), name, changed)


def _digest_standing(session: Session, selector: FeedSelector) -> Standing | None:
    digest = session.scalar(select(Digest).where(Digest.slug == selector.slug))
    if digest is None:
        return None
    version, changed = _version(session, -digest.id)
    events = session.execute(
        select(Edition.released_at, Edition.finished_at).where(
            Edition.digest_id == digest.id, Edition.released_at.is_not(None)
        )
    ).all()
    moments = [moment for event in events for moment in event if moment] + ([changed] if changed else [])
    return Standing((digest.id, version, len(moments), max(moments, default=None)), digest.name, strictly_last(moments))


def strictly_last(moments: Iterable[datetime]) -> datetime | None:
    """The last of *moments* in whole seconds, each counted at least a second after the one before it."""
    last: datetime | None = None
    for moment in sorted(moments):
        second = moment.replace(microsecond=0)
        last = second if last is None else max(second, last + _SECOND)
    return last


def read_standing(session: Session, selector: FeedSelector) -> Standing | None:
    """None: there is no such feed."""
    match selector.kind:
        case "all":
            version, changed = _version(session, 0)
            return Standing((version,), "", changed)
        case "author":
            return _author_standing(session, selector)
        case "digest":
            return _digest_standing(session, selector)
        case _:
            return _topic_standing(session, selector)


# ----------------------------------------------------------------------------- views


def _story_html(story: StoryCard) -> str:
    lead = story.lead
    parts = [f'<h3><a href="{escape(lead.url)}">{escape(lead.title)}</a></h3>']
    if lead.excerpt:
        parts.append(f"<p>{escape(lead.excerpt)}</p>")
    if story.also:
        links = (f'<li><a href="{escape(a.url)}">{escape(a.title)}</a></li>' for a in story.also)
        parts.append(f"<ul>{''.join(links)}</ul>")
    return "".join(parts)


def _edition_html(page: EditionPage) -> str:
    sections = (
        (f"<h2>{escape(s.title)}</h2>" if s.title else "") + "".join(map(_story_html, s.stories)) for s in page.sections
    )
    return "".join(sections)


def _edition_item(page: EditionPage, public_url: str) -> FeedItem:
    url = f"{public_url}/archive/{quote(page.digest_slug, safe='')}/{quote(page.slug, safe='')}"
    titles = [story.lead.title for section in page.sections for story in section.stories]
    return FeedItem(
        id=url,
        url=url,
        title=page.subject or f"{page.digest_name} {page.slug}",
        published=page.released,
        updated=page.released,
        html=_edition_html(page),
        summary=" · ".join(titles[:5]),
    )


def read_view(session: Session, selector: FeedSelector, name: str, *, public_url: str, live: bool) -> FeedView:
    """What the feed holds now. *name*: of its topic, author or digest. *live*: as `edition_pages` wants it."""
    brand = catalogue.brand(session, public_url)
    if selector.kind == "digest":
        pages = ledger.edition_pages(session, selector.slug, EDITIONS, live=live)
        items = [_edition_item(page, public_url) for page in pages]
    else:
        items = catalogue.feed_items(session, selector) or []
    title = title_of(name, brand)
    return FeedView(
        url=url_of(selector, public_url),
        title=title,
        home_url=f"{public_url}/archive" if selector.kind == "digest" else f"{public_url}/",
        description=title,
        language=brand.language,
        updated=max((item.updated for item in items), default=NEVER),
        items=tuple(items),
        icon_url=brand.logo_url,
        publisher=brand.name,
    )


# ----------------------------------------------------------------------------- the list


def title_of(name: str, brand: Brand) -> str:
    return f"{name} – {brand.name}" if name else brand.name


def url_of(selector: FeedSelector, public_url: str) -> str:
    """The feed's address without its extension."""
    if selector.kind == "all":
        return f"{public_url}/feeds/all"
    return f"{public_url}/feeds/{selector.kind}/{quote(selector.slug, safe='')}"


def list_feeds(session: Session, public_url: str) -> list[Feed]:
    """Every feed that has something to say: all, categories, tags, authors, and every digest."""
    brand = catalogue.brand(session, public_url)
    named: list[tuple[FeedSelector, str]] = [(FeedSelector("all"), "")]
    named += [(FeedSelector(cast(Any, t.kind), t.slug), t.name) for t in _told_topics(session)]
    named += [(FeedSelector("author", slug), name) for slug, name in _authors(session)]
    digests = session.execute(select(Digest.slug, Digest.name).order_by(Digest.slug))
    named += [(FeedSelector("digest", slug), name) for slug, name in digests]
    return [Feed(selector, title_of(name, brand), url_of(selector, public_url)) for selector, name in named]


def _told_topics(session: Session) -> list[catalogue.TopicRow]:
    """Topics with articles, and the categories above them, whose feeds show those too."""
    rows = catalogue.topic_rows(session, include_empty=True)
    parents = {row.slug: row.parent for row in rows if row.kind == "category"}
    told: set[str] = set()
    for row in rows:
        above: str | None = row.slug if row.kind == "category" and row.count else None
        while above is not None and above not in told:
            told.add(above)
            above = parents.get(above)
    return [row for row in rows if row.count or (row.kind == "category" and row.slug in told)]


def _authors(session: Session) -> list[tuple[str, str]]:
    """Slug and name of everybody with a published article; of several spellings, the newest article's."""
    rows = session.execute(
        select(ArticleAuthor.slug, ArticleAuthor.name)
        .join(Article, Article.id == ArticleAuthor.article_id)
        .where(Article.status == ArticleStatus.PUBLISHED)
        .order_by(Article.published_at, Article.feed_id.desc())
    )
    names = dict(rows.all())  # the newest comes last
    return sorted(names.items())
