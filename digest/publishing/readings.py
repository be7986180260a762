"""What feeds there are, how each stands in the database, and what it holds. Reads; changes nothing, keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any, NamedTuple, cast
from urllib.parse import quote
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from digest import catalogue, ledger
from digest.db import clock
from digest.models import Article, ArticleAuthor, Digest, Edition, FeedVersion, Publication, Source, Topic
from digest.publishing.names import Feed, url_of
from digest.publishing.planned import Planned, planned, planned_columns
from digest.types import ArticleStatus, Brand, EditionPage, FeedItem, FeedSelector, FeedView, StoryCard, TopicKind

#: Editions in a digest's feed.
EDITIONS = 30
#: When a feed without items was updated.
NEVER = datetime(2000, 1, 1, tzinfo=UTC)
#: Feeds that hubs are told of. Others name no hub: a reader that trusts one would wait for ever.
TOLD_TO_HUBS = ("all", "category", "tag", "digest")
#: Row of `FeedVersion` that stands for the whole catalogue.
WHOLE = 0

_SECOND = timedelta(seconds=1)


# ----------------------------------------------------------------------------- how a feed stands


@dataclass(frozen=True, slots=True)
class Marks:
    """What is read once a second: nothing that a feed shows can change without one of these."""

    version: int
    editions: tuple[object, ...]
    brand: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a feed stands in the database: it can only change when one of these rows of versions does.

    ``needs``: (row, version). ``key``: what else it hangs on. ``changed``: None if nothing ever did. ``text``: full or
    excerpt, where a topic has it its own way.
    """

    needs: tuple[tuple[int, int], ...]
    title: str
    changed: datetime | None
    key: tuple[object, ...] = ()
    text: str | None = None


def read_marks(session: Session) -> tuple[Marks, Planned]:
    """Read everything in one statement, each part of it by an index or from a single row."""
    ahead = planned_columns()
    parts = [
        select(FeedVersion.version).where(FeedVersion.topic_id == WHOLE),
        select(func.max(Edition.id)),
        select(func.max(Edition.released_at)),
        select(func.max(Edition.finished_at)),
        *(
            select(column).where(Publication.id == 1)
            for column in (
                Publication.name, Publication.language, Publication.logo_url, Publication.armed_for,
                Publication.timezone, Publication.feed_text,
            )
        ),
        *ahead,
    ]  # fmt: skip
    version, *rest = session.execute(select(*(part.scalar_subquery() for part in parts))).one()
    marks = Marks(version or 0, tuple(rest[:3]), tuple(rest[3 : -len(ahead)]))
    return marks, planned(*rest[-len(ahead) :])


def read_versions(session: Session, since: datetime | None) -> tuple[dict[int, int], datetime]:
    """Versions by row, those that moved after *since* or all of them; and the database's time before it was asked.

    Not the date of the last change: a row that changes more than once a second is dated ahead of the time.
    """
    now = clock(session)
    query = select(FeedVersion.topic_id, FeedVersion.version)
    found: dict[int, int] = dict(
        session.execute(query if since is None else query.where(FeedVersion.changed_at >= since)).all()
    )
    return found, now


def _version(session: Session, row: int) -> tuple[int, datetime | None]:
    found = session.execute(
        select(FeedVersion.version, FeedVersion.changed_at).where(FeedVersion.topic_id == row)
    ).one_or_none()
    return (found[0], found[1]) if found else (0, None)


def _own_standing(session: Session, row: int, title: str, text: str | None = None) -> Standing:
    version, changed = _version(session, row)
    return Standing(((row, version),), title, changed, text=text)


def _shown_topic(session: Session, kind: str, slug: str) -> Topic | None:
    topic = catalogue.find_topic(session, kind, slug)
    if topic is None or topic.slug != slug or topic.hidden or topic.merged_into is not None:
        return None
    return topic


def _combined_standing(session: Session, selector: FeedSelector) -> Standing | None:
    """Two rows may have moved in the same second: the date is the whole catalogue's, which moves with each of them."""
    topics = [_shown_topic(session, kind, slug) for kind, slug in catalogue.terms(selector.slug)]
    if None in topics:
        return None
    shown = [topic for topic in topics if topic is not None]
    needs = tuple((topic.id, _version(session, topic.id)[0]) for topic in shown)
    title = (", " if selector.kind == "any" else " + ").join(topic.name for topic in shown)
    return Standing(needs, title, _version(session, WHOLE)[1])


def _named_standing(session: Session, selector: FeedSelector) -> Standing | None:
    """Authors, languages and sources have no version of their own: the whole catalogue's stands for them."""
    name = _name(session, selector)
    return None if name is None else _own_standing(session, WHOLE, name)


def _name(session: Session, selector: FeedSelector) -> str | None:
    """What an author, language or source is called; None where nothing of theirs is published."""
    newest = (Article.published_at.desc(), Article.feed_id)
    published = Article.status == ArticleStatus.PUBLISHED
    if selector.kind == "author":
        query = select(ArticleAuthor.name).join(Article, Article.id == ArticleAuthor.article_id)
        return session.scalar(query.where(ArticleAuthor.slug == selector.slug, published).order_by(*newest).limit(1))
    if selector.kind == "source":
        found = session.execute(select(Source.title, Source.slug).where(Source.slug == selector.slug)).one_or_none()
        return (found.title or found.slug) if found else None
    if selector.slug != selector.slug.lower():
        return None
    found_any = session.scalar(select(Article.id).where(published, catalogue.scope(session, selector)).limit(1))
    return None if found_any is None else selector.slug


def _digest_standing(session: Session, selector: FeedSelector) -> Standing | None:
    digest = session.scalar(select(Digest).where(Digest.slug == selector.slug))
    if digest is None:
        return None
    version, changed = _version(session, -digest.id)
    moments = [*edition_moments(session, digest.id), *([changed] if changed else [])]
    key = (len(moments), max(moments, default=None))
    return Standing(((-digest.id, version),), digest.name, strictly_last(moments), key)


def edition_moments(session: Session, digest: int) -> list[datetime]:
    """When the editions of a digest were released and finished."""
    query = select(Edition.released_at, Edition.finished_at)
    events = session.execute(query.where(Edition.digest_id == digest, Edition.released_at.is_not(None))).all()
    return [moment for event in events for moment in event if moment]


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
            return _own_standing(session, WHOLE, "")
        case "digest":
            return _digest_standing(session, selector)
        case "category" | "tag":
            topic = _shown_topic(session, selector.kind, selector.slug)
            return None if topic is None else _own_standing(session, topic.id, topic.name, topic.feed_text)
        case "any" | "every":
            return _combined_standing(session, selector)
        case _:
            return _named_standing(session, selector)


class Gone(NamedTuple):
    """Why there is no such feed any more, and the feed that has taken its place; None: nothing has."""

    now: FeedSelector | None


def whereabouts(session: Session, selector: FeedSelector) -> Gone | None:
    """Where the feed of a topic went that was renamed, merged or hidden; None if nothing became of it."""
    if selector.kind not in ("category", "tag", "any", "every"):
        return None
    combined = selector.kind in ("any", "every")
    asked = catalogue.terms(selector.slug) if combined else [(str(selector.kind), selector.slug)]
    topics = [_final(session, kind, slug) for kind, slug in asked]
    found = [topic for topic in topics if topic is not None]
    if len(found) < len(asked):
        return None
    if any(topic.hidden for topic in found):
        return Gone(None)
    now = sorted({(topic.kind, topic.slug) for topic in found})
    if now == sorted(asked):
        return None
    if len(now) == 1:
        return Gone(replace(selector, kind=cast(Any, now[0][0]), slug=now[0][1]))
    return Gone(replace(selector, slug="+".join(f"{kind}:{slug}" for kind, slug in now)))


def _final(session: Session, kind: str, slug: str) -> Topic | None:
    topic = catalogue.find_topic(session, kind, slug)
    return session.get(Topic, topic.merged_into) if topic is not None and topic.merged_into is not None else topic


# ----------------------------------------------------------------------------- views


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where feeds go out and as what, as one transaction has it; and the articles that were read in it so far.

    ``live``: editions are the live ones. ``text``: full or excerpt, where nothing else is said.
    """

    public_url: str
    live: bool
    hubs: tuple[str, ...]
    brand: Brand
    text: str
    known: catalogue.Known = field(default_factory=catalogue.Known, compare=False)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.brand.timezone)


def read_outlet(session: Session, public_url: str, *, live: bool, hubs: tuple[str, ...] = ()) -> Outlet:
    """*live* as set; a database that is armed for this very address is live too."""
    own = catalogue.publication(session)
    brand = catalogue.brand(session, public_url)
    return Outlet(public_url, live or own.armed_for == public_url, hubs, brand, own.feed_text)


def read_view(session: Session, selector: FeedSelector, standing: Standing, outlet: Outlet) -> FeedView | None:
    """What the feed, or the part of it, holds now; None if there is no such part."""
    brand = outlet.brand
    if selector.kind == "digest":
        part = _editions_part(session, selector, outlet)
    else:
        part = catalogue.feed_part(session, selector, outlet.zone, outlet.known)
    if part is None:
        return None
    in_full = selector.kind == "digest" or (standing.text or outlet.text) != "excerpt"
    items = part.items if in_full else tuple(replace(item, html="") for item in part.items)
    title = title_of(standing.title, selector, brand)
    older = replace(selector.live, month=part.older) if part.older else None
    after = replace(selector, page=selector.page + 1) if part.more else older
    newer = replace(selector, month=part.newer) if part.newer else None
    current = selector.live != selector
    return FeedView(
        url=url_of(selector, outlet.public_url),
        title=title,
        home_url=f"{outlet.public_url}/archive" if selector.kind == "digest" else f"{outlet.public_url}/",
        description=title,
        language=brand.language,
        updated=max((item.updated for item in items), default=NEVER),
        items=items,
        hubs=outlet.hubs if selector.kind in TOLD_TO_HUBS and not current else (),
        icon_url=brand.logo_url,
        publisher=brand.name,
        current_url=url_of(selector.live, outlet.public_url) if current else "",
        older_url=url_of(after, outlet.public_url) if after else "",
        older_month_url=url_of(older, outlet.public_url) if older else "",
        newer_month_url=url_of(newer, outlet.public_url) if newer else "",
        archive=part.closed,
    )


def title_of(name: str, selector: FeedSelector, brand: Brand) -> str:
    """Climate, by story, 2025-07 – The Harbour Paper."""
    told = [name or brand.name, "by story" if selector.stories else "", selector.month]
    title = ", ".join(filter(None, told))
    return f"{title} – {brand.name}" if name else title


# ----------------------------------------------------------------------------- editions


def _editions_part(session: Session, selector: FeedSelector, outlet: Outlet) -> catalogue.FeedPart | None:
    if selector.page > 1:
        return None
    entries = ledger.archive(session, live=outlet.live, digest_slug=selector.slug)
    months = sorted({f"{entry.local:%Y-%m}" for entry in entries}, reverse=True)
    if not selector.month:
        pages = ledger.edition_pages(session, selector.slug, EDITIONS, live=outlet.live)
        items = tuple(_edition_item(page, outlet.public_url) for page in pages)
        return catalogue.FeedPart(items, older=months[1] if len(months) > 1 else None)
    if selector.month not in months:
        return None
    slugs = [entry.slug for entry in entries if f"{entry.local:%Y-%m}" == selector.month]
    found = (ledger.edition_page(session, selector.slug, slug, live=outlet.live) for slug in slugs)
    place = months.index(selector.month)
    return catalogue.FeedPart(
        tuple(_edition_item(page, outlet.public_url) for page in found if page is not None),
        older=months[place + 1] if place + 1 < len(months) else None,
        newer=months[place - 1] if place > 1 else None,  # the first is open
        closed=place > 0,
    )


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


# ----------------------------------------------------------------------------- the list


def list_feeds(session: Session, public_url: str) -> list[Feed]:
    """Every feed that has something to say: all, topics, authors, languages, sources, and every digest.

    Those by story and the months of each are left out: `trees_of` and `months_of` have them. Combinations are made
    when asked for.
    """
    brand = catalogue.brand(session, public_url)
    named: list[tuple[FeedSelector, str]] = [(FeedSelector("all"), "")]
    named += [(FeedSelector(cast(Any, t.kind), t.slug), t.name) for t in _told_topics(session)]
    named += [(FeedSelector("author", slug), name) for slug, name in _authors(session)]
    named += [(FeedSelector("language", slug), slug) for slug in _languages(session)]
    named += [(FeedSelector("source", slug), title or slug) for slug, title in _sources(session)]
    digests = session.execute(select(Digest.slug, Digest.name).order_by(Digest.slug))
    named += [(FeedSelector("digest", slug), name) for slug, name in digests]
    return [Feed(selector, title_of(name, selector, brand), url_of(selector, public_url)) for selector, name in named]


def trees_of(selector: FeedSelector) -> list[FeedSelector]:
    """The feed, and the same by story; editions tell each story once anyway."""
    return [selector] if selector.kind == "digest" else [selector, replace(selector, stories=True)]


def months_of(session: Session, selector: FeedSelector, outlet: Outlet) -> list[FeedSelector]:
    """The archives of the feed's months, the open one included."""
    if selector.kind == "digest":
        entries = ledger.archive(session, live=outlet.live, digest_slug=selector.slug)
        months = sorted({f"{entry.local:%Y-%m}" for entry in entries}, reverse=True)
    else:
        months = catalogue.feed_months(session, selector, outlet.zone)
    return [replace(selector, month=month) for month in months]


def _told_topics(session: Session) -> list[catalogue.TopicRow]:
    """Topics with articles, and the categories above them, whose feeds show those too."""
    rows = catalogue.topic_rows(session, include_empty=True)
    parents = {row.slug: row.parent for row in rows if row.kind == TopicKind.CATEGORY}
    told: set[str] = set()
    for row in rows:
        above: str | None = row.slug if row.kind == TopicKind.CATEGORY and row.count else None
        while above is not None and above not in told:
            told.add(above)
            above = parents.get(above)
    return [row for row in rows if row.count or (row.kind == TopicKind.CATEGORY and row.slug in told)]


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


def _languages(session: Session) -> list[str]:
    published = Article.status == ArticleStatus.PUBLISHED
    return sorted(tag for tag in session.scalars(select(Article.language).where(published).distinct()) if tag)


def _sources(session: Session) -> list[tuple[str, str]]:
    rows = session.execute(select(Source.slug, Source.title).order_by(Source.slug)).all()
    return [(slug, title) for slug, title in rows]
