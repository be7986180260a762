"""Items of a source → rows of the catalogue, a chunk at a time and set-wise: a dozen statements whatever its size.

    store    names → owners (4 queries) → which article each item is → new rows · changed rows · nothing
             → topics, authors, aliases → counts of topics → versions, last

An item that says nothing new writes nothing. An article is changed by its own source alone: where a site's export and
its feed both carry it, the second one only adds a name. `published_at` is set once, `feed_id` never moves.
"""

from __future__ import annotations

import json
from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from digest.catalogue.identity import Chooser, Match, Name, Names, Seen, is_global, names_of, shared_names, tidy_guid
from digest.catalogue.revisions import record_revisions
from digest.catalogue.shared import chunks, take_turn
from digest.catalogue.topics import Tree, count_spellings, ensure_topics, tidy
from digest.catalogue.versions import bump, bump_all
from digest.models import Article, ArticleAlias, ArticleAuthor, ArticleTopic, Source, Topic
from digest.sql import given, insert_many, one_of
from digest.text import slugify, strip_controls
from digest.types import ArticleStatus, CleanArticle, RawArticle, TopicKind, TopicRef

#: A clock that runs ahead of ours by less than this means now.
SKEW = timedelta(minutes=10)
_OLDEST = datetime(1990, 1, 1, tzinfo=UTC)  # before the web: a broken date, not an article's
_COUNTED = frozenset({ArticleStatus.PUBLISHED, ArticleStatus.WITHHELD})
_MAX_AUTHORS = 50

_articles: Table = Article.__table__  # type: ignore[assignment]
_aliases: Table = ArticleAlias.__table__  # type: ignore[assignment]
_authors: Table = ArticleAuthor.__table__  # type: ignore[assignment]
_article_topics: Table = ArticleTopic.__table__  # type: ignore[assignment]
_topics: Table = Topic.__table__  # type: ignore[assignment]


@dataclass(slots=True)
class Counts:
    """What became of the items handed to `store`. ``scheduled``: those of them that wait for their date."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    repeated: int = 0  # the document gave the same article before
    scheduled: int = 0
    warnings: list[str] = field(default_factory=list)
    touched: list[int] = field(default_factory=list)  # articles new or changed: their stories are to be found
    seen: Seen = field(default_factory=dict)  # for the chunks to come, once this one is committed


@dataclass(slots=True)
class _Known:
    """An article that is there already, as far as a decision needs it."""

    source_id: int | None
    content_hash: str
    status: str
    published_at: datetime
    eligible_at: datetime
    updated_at: datetime
    first_seen_at: datetime


@dataclass(slots=True)
class _Item:
    raw: RawArticle
    clean: CleanArticle
    refs: list[TopicRef]
    names: list[tuple[str, str]]  # authors: (slug, name)
    content_hash: str
    named: int  # so many of ``refs`` did the item itself spell; the others are what its source's options say
    match: Match = field(default_factory=lambda: Match(None, Names()))
    unheard: list[Name] = field(default_factory=list)  # names that no article goes by yet

    @property
    def authors(self) -> list[str]:
        return [name for _, name in self.names]

    @property
    def article(self) -> int:
        """The article's id, once it is known or made."""
        assert self.match.article is not None
        return self.match.article


def names_that_tell_nothing(source: Source, items: Iterable[tuple[RawArticle, CleanArticle]]) -> frozenset[Name]:
    """What `store` finds out by itself about a chunk that it is given whole."""
    return shared_names([names_of(raw, clean, source.id) for raw, clean in items])


def store(
    session: Session,
    source: Source,
    items: Iterable[tuple[RawArticle, CleanArticle]],
    *,
    at: datetime,
    seen: Seen | None = None,
    shared: frozenset[Name] | None = None,
) -> Counts:
    """Store one chunk of a source's items (some hundred), in this transaction.

    ``seen`` is what the chunks before it gave (`Counts.seen`, added up); ``shared`` are the names that tell nothing,
    where the caller hands the items of a chunk in singly.
    """
    take_turn(session)
    pairs = [(raw, clean) for raw, clean in items]
    names = [names_of(raw, clean, source.id) for raw, clean in pairs]
    counts = Counts()
    made = [_item(source, raw, clean) for raw, clean in pairs]
    matched = _choose(session, made, names, seen or {}, shared_names(names) if shared is None else shared, counts)
    new = [i for i in matched if i.match.article is None]
    known = _known(session, [i.article for i in matched if i.match.article is not None])
    changed = _sort_out(source, matched, known, at, counts)
    topics = ensure_topics(session, (ref for i in [*new, *changed] for ref in i.refs)) if new or changed else {}
    _insert(session, source, new, at, counts)
    _add_names(session, matched)
    edited = record_revisions(session, _replacing(source, changed, known, topics, at), at)
    touched, respelled = _link_topics(session, new, changed, known, topics, at)
    _update(session, source, changed, known, at, edited)
    _link_authors(session, new, changed)
    if respelled:  # items of every feed name their topics
        bump_all(session, touched)
    elif touched:
        bump(session, touched)
    counts.touched = [item.article for item in [*new, *changed]]
    counts.seen = {item.article: item.match.names.print() for item in matched}
    return counts


# ----------------------------------------------------------------------------- one item


def _item(source: Source, raw: RawArticle, clean: CleanArticle) -> _Item:
    given = [ref for ref in map(tidy, raw.topics) if ref is not None]
    named = len({(ref.kind, ref.slug) for ref in given})
    given += [ref for ref in map(tidy, raw.assigned) if ref is not None]
    given += [TopicRef(TopicKind.CATEGORY, slug, _worded(slug)) for slug in source.categories]
    refs = list({(ref.kind, ref.slug): ref for ref in reversed(given)}.values())[::-1]  # the first of its kind stays
    people = [" ".join(strip_controls(a).split())[:200] for a in raw.authors[:_MAX_AUTHORS]]
    names = list({slugify(name): name for name in reversed(people) if slugify(name)}.items())[::-1]
    return _Item(raw, clean, refs, names, _hash(source, raw, clean, refs, names), named)


def _worded(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def _language(source: Source, raw: RawArticle) -> str | None:
    """An article's language, else its source's; anything longer than a tag is none (RFC 5646 §2.1.1)."""
    tag = (raw.language or source.language or "").strip().replace("_", "-").lower()
    return tag if tag.isascii() and 0 < len(tag) <= 16 else None


def _image(clean: CleanArticle) -> dict[str, Any] | None:
    image = clean.image
    return {k: getattr(image, k) for k in ("url", "width", "height", "alt", "credit")} if image else None


def _enclosures(clean: CleanArticle) -> list[list[Any]] | None:
    return [[one.url, one.type, one.length] for one in clean.enclosures] or None


def _hash(
    source: Source, raw: RawArticle, clean: CleanArticle, refs: list[TopicRef], names: list[tuple[str, str]]
) -> str:
    """What a reader could tell apart. Dates are not in it: a source that dates anew on every build changes nothing."""
    texts = (clean.title, clean.url, clean.canonical_url, clean.body_html, clean.body_text, clean.excerpt)
    others = [
        [len(text) for text in texts], names, [[ref.kind, ref.slug] for ref in refs], _image(clean),
        _language(source, raw), raw.sticky, raw.withheld,
    ]  # fmt: skip
    if enclosures := _enclosures(clean):
        others.append(enclosures)
    return sha256("".join([json.dumps(others, sort_keys=True), *texts]).encode("utf-8", "surrogatepass")).hexdigest()


def _given_date(raw: RawArticle) -> datetime | None:
    when = raw.published_at
    return when if when is not None and when >= _OLDEST else None


def _first_status(raw: RawArticle, at: datetime) -> tuple[ArticleStatus, datetime, str]:
    """Status, date and precision of an item that is met for the first time, or that still waits."""
    given = _given_date(raw)
    if given is None:
        return (ArticleStatus.WITHHELD if raw.withheld else ArticleStatus.PUBLISHED), at, "seen"
    if raw.withheld:
        return ArticleStatus.WITHHELD, given, "given"
    if given > at + SKEW:
        return ArticleStatus.SCHEDULED, given, "given"
    return ArticleStatus.PUBLISHED, min(given, at), "given"


# ----------------------------------------------------------------------------- which article


def _choose(
    session: Session, items: list[_Item], names: list[Names], seen: Seen, shared: frozenset[Name], counts: Counts
) -> list[_Item]:
    """Match items to articles; those that the document gave before are counted and left out."""
    owners = _owners(session, names)
    chooser = Chooser(dict(owners), ChainMap({}, seen), shared)
    kept = []
    for n, (item, own) in enumerate(zip(items, names, strict=True)):
        match = chooser.match(own)
        if match.repeated:
            counts.repeated += 1
            continue
        if match.conflict:
            counts.warnings.append(_conflict(item, match))
        item.match = match
        recorded = match.names.all() if match.article is None else match.names.lasting()
        item.unheard = [name for name in recorded if name not in owners]
        chooser.take(-1 - n if match.article is None else match.article, match.names)  # the new have no id yet
        kept.append(item)
    return kept


def _conflict(item: _Item, match: Match) -> str:
    others = ", ".join(str(article) for article in match.conflict if article > 0) or "of this chunk"
    return f"{item.clean.url} goes by names of articles {match.article} and {others}; it was taken for {match.article}"


def _owners(session: Session, names: Iterable[Names]) -> dict[Name, int]:
    """The articles behind all these names: one query for each scope and kind of name."""
    wanted: dict[tuple[int, str], set[str]] = {}
    for name in (n for own in names for n in own.all()):
        wanted.setdefault((name.scope, name.kind), set()).add(name.value)
    owners: dict[Name, int] = {}
    for (scope, kind), values in sorted(wanted.items()):
        each, alias = given(session, sorted(values)), ArticleAlias
        # asked once a name: while a first import goes on no planner knows how many rows there are by now
        owner = select(alias.article_id).where(alias.scope == scope, alias.kind == kind, alias.value == each.c.value)
        for value, article in session.execute(select(each.c.value, owner.scalar_subquery())):
            if article is not None:
                owners[Name(scope, kind, value)] = article
    return owners


def _known(session: Session, ids: Sequence[int]) -> dict[int, _Known]:
    if not ids:
        return {}
    a = Article
    query = select(
        a.id, a.source_id, a.content_hash, a.status, a.published_at, a.eligible_at, a.updated_at, a.first_seen_at
    )
    return {row.id: _Known(*row[1:]) for row in session.execute(query.where(one_of(session, a.id, ids)))}


def _sort_out(
    source: Source, items: list[_Item], known: dict[int, _Known], at: datetime, counts: Counts
) -> list[_Item]:
    """Return the items that change their article; the others of those known are as they were, or another source's."""
    changed = []
    for item in items:
        row = known.get(item.match.article or 0)
        if row is None:
            continue
        ours = row.source_id in (source.id, None)  # an article whose source was removed takes the next that has it
        status, published = _next_status(item, row, at)
        differs = (row.content_hash, row.status, row.published_at) != (item.content_hash, status, published)
        if ours and (differs or row.source_id is None):
            changed.append(item)
        counts.scheduled += (status if ours else row.status) == ArticleStatus.SCHEDULED
    counts.changed = len(changed)
    counts.unchanged = sum(1 for i in items if i.match.article is not None) - len(changed)
    return changed


def _next_status(item: _Item, row: _Known, at: datetime) -> tuple[ArticleStatus, datetime]:
    """Status and date of an article that is there already: the date moves only while it has not come."""
    if item.raw.withheld:
        return ArticleStatus.WITHHELD, row.published_at
    if row.status == ArticleStatus.PUBLISHED or (row.status != ArticleStatus.SCHEDULED and row.published_at <= at):
        return ArticleStatus.PUBLISHED, row.published_at
    date = _given_date(item.raw) or row.published_at
    return (ArticleStatus.SCHEDULED if date > at else ArticleStatus.PUBLISHED), date


# ----------------------------------------------------------------------------- rows


def _ids(session: Session, count: int) -> list[int]:
    """Ids for new articles, known before they are inserted: a story of its own carries the article's id."""
    if session.get_bind().dialect.name == "postgresql":
        query = text("SELECT nextval(pg_get_serial_sequence('articles', 'id')) FROM generate_series(1, :n)")
        return sorted(session.scalars(query, {"n": count}))
    first = session.scalar(select(func.coalesce(func.max(Article.id), 0))) or 0
    return [first + n for n in range(1, count + 1)]


def _content(source: Source, item: _Item) -> dict[str, Any]:
    clean = item.clean
    return {
        "url": clean.url, "canonical_url": clean.canonical_url, "title": clean.title, "body_html": clean.body_html,
        "body_text": clean.body_text, "excerpt": clean.excerpt, "authors": item.authors, "image": _image(clean),
        "enclosures": _enclosures(clean),
        "language": _language(source, item.raw), "word_count": clean.word_count, "sticky": item.raw.sticky,
        "content_hash": item.content_hash, "clue_title": clean.clue_title, "clue_url": clean.clue_url,
    }  # fmt: skip


def _insert(session: Session, source: Source, new: list[_Item], at: datetime, counts: Counts) -> None:
    """Insert new articles; each item's match then names its article."""
    rows = []
    for article, item in zip(_ids(session, len(new)) if new else (), new, strict=True):
        item.match.article = article
        status, published, precision = _first_status(item.raw, at)
        updated = item.raw.updated_at
        counts.scheduled += status is ArticleStatus.SCHEDULED
        rows.append({
            **_content(source, item), "id": article, "source_id": source.id, "story_id": article, "status": str(status),
            "feed_id": _feed_id(item, article), "published_at": published, "published_precision": precision,
            "eligible_at": published if source.imported_at is None else max(published, at), "first_seen_at": at,
            "updated_at": max(published, updated) if updated and updated <= at else published,
        })  # fmt: skip
    if rows:
        session.execute(insert(_articles), rows)
    counts.new = len(rows)


def _feed_id(item: _Item, article: int) -> str:
    """What feeds call the article, for ever: a guid or URL that names it alone (RFC 4287 §4.2.6)."""
    guid = tidy_guid(item.raw)
    if item.match.names.guid is not None and is_global(guid):
        return guid
    if item.match.names.url is not None:
        return item.clean.canonical_url
    return f"{item.clean.canonical_url}#article-{article}"


def _add_names(session: Session, items: list[_Item]) -> None:
    """Record names that are not taken; the older article keeps those that are."""
    wanted: dict[Name, int] = {}
    for item in items:
        for name in item.unheard:
            wanted.setdefault(name, item.article)
    names = sorted(wanted)
    columns = dict(zip(("scope", "kind", "value"), map(list, zip(*names, strict=True)), strict=True)) if names else {}
    insert_many(session, ArticleAlias, {**columns, "article_id": [wanted[n] for n in names]})


def _replacing(
    source: Source, changed: list[_Item], known: dict[int, _Known], topics: dict[tuple[str, str], int], at: datetime
) -> dict[int, dict[str, Any]]:
    """What articles with other content are about to become."""
    return {
        item.article: {
            **_content(source, item),
            "status": _next_status(item, known[item.article], at)[0],
            "topics": _own(item, topics),
        }
        for item in changed
        if item.content_hash != known[item.article].content_hash
    }


def _own(item: _Item, topics: dict[tuple[str, str], int]) -> list[int]:
    """The ids of an item's topics, each once, in its order."""
    return list(dict.fromkeys(topics[ref.kind, ref.slug] for ref in item.refs))


def _update(
    session: Session, source: Source, changed: list[_Item], known: dict[int, _Known], at: datetime, edited: set[int]
) -> None:
    rows = []
    for item in changed:
        row = known[item.article]
        status, published = _next_status(item, row, at)
        rows.append({
            **_content(source, item), "article": item.article, "source_id": source.id, "status": str(status),
            "published_at": published, "eligible_at": _eligible(row, status, published, at),
            "updated_at": _updated(item, row, published, at, edited=item.article in edited),
        })  # fmt: skip
    if rows:
        statement = update(_articles).where(_articles.c.id == bindparam("article"))
        session.execute(statement, sorted(rows, key=lambda row: row["article"]))


def _eligible(row: _Known, status: ArticleStatus, published: datetime, at: datetime) -> datetime:
    """A known article never becomes recent again, but for one that could not be shown until now."""
    if row.status == ArticleStatus.WITHHELD and status is ArticleStatus.PUBLISHED:
        return max(row.eligible_at, at)
    if published != row.published_at:  # only while it waits for its date
        return max(published, row.first_seen_at)
    return row.eligible_at


def _updated(item: _Item, row: _Known, published: datetime, at: datetime, *, edited: bool) -> datetime:
    if row.status == ArticleStatus.SCHEDULED:
        return published  # nobody has seen it yet
    if not edited:
        return row.updated_at
    told = item.raw.updated_at
    if told is not None and row.updated_at < told <= at + SKEW:
        return told
    return max(row.updated_at, at)


# ----------------------------------------------------------------------------- links


def _link_topics(
    session: Session,
    new: list[_Item],
    changed: list[_Item],
    known: dict[int, _Known],
    topics: dict[tuple[str, str], int],
    at: datetime,
) -> tuple[set[int], bool]:
    """Link articles to topics, move the topics' counts. Returns whose feeds see a change, and whether a name changed.

    Ancestors are among them, for a category's feed takes its children's articles in, and 0: the whole.
    """
    before = _topics_of(session, [i.article for i in changed])
    if before:
        for part in chunks(sorted(before)):
            session.execute(delete(_article_topics).where(_article_topics.c.article_id.in_(part)))
    moved, seen_by, came = Counter[int](), set[int](), Counter[tuple[int, str, str]]()
    linked: dict[str, list[int]] = {"article_id": [], "topic_id": [], "position": []}
    for item in [*new, *changed]:
        article, had = item.article, set(before.get(item.article, ()))
        for ref in item.refs[: item.named]:
            if (topic := topics[ref.kind, ref.slug]) not in had:
                came[topic, ref.slug, ref.name] += 1
                had.add(topic)
        own = _own(item, topics)
        linked["article_id"] += [article] * len(own)
        linked["topic_id"] += own
        linked["position"] += range(len(own))
        row = known.get(article)
        status = _first_status(item.raw, at)[0] if row is None else _next_status(item, row, at)[0]
        moved.update(own if status in _COUNTED else ())
        if row is not None:
            moved.subtract(before.get(article, ()) if row.status in _COUNTED else ())
        if ArticleStatus.PUBLISHED in (status, row and row.status):
            seen_by.update((0, *own, *before.get(article, ())))
    insert_many(session, ArticleTopic, linked)
    move_counts(session, moved)
    respelled = count_spellings(session, came)
    return (Tree.load(session).all_up(seen_by) if seen_by else set()), respelled


def _topics_of(session: Session, ids: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    query = select(ArticleTopic.article_id, ArticleTopic.topic_id)
    for article, topic in session.execute(query.where(one_of(session, ArticleTopic.article_id, ids))) if ids else ():
        found.setdefault(article, []).append(topic)
    return found


def move_counts(session: Session, moved: Counter[int]) -> None:
    """Add to the topics' counts of articles, in the order of their ids."""
    rows = [{"topic": topic, "more": more} for topic, more in sorted(moved.items()) if more]
    if rows:
        statement = update(_topics).where(_topics.c.id == bindparam("topic"))
        session.execute(statement.values(articles=_topics.c.articles + bindparam("more")), rows)


def _link_authors(session: Session, new: list[_Item], changed: list[_Item]) -> None:
    for part in chunks(i.article for i in changed):
        session.execute(delete(_authors).where(_authors.c.article_id.in_(part)))
    people = [(item.article, slug, name, n) for item in [*new, *changed] for n, (slug, name) in enumerate(item.names)]
    if people:
        columns = zip(("article_id", "slug", "name", "position"), map(list, zip(*people, strict=True)), strict=True)
        insert_many(session, ArticleAuthor, dict(columns))


# ----------------------------------------------------------------------------- moves


def publish_due(session: Session, at: datetime) -> int:
    """Move articles whose date has come from scheduled to published. Returns how many."""
    take_turn(session)
    due = (Article.status == str(ArticleStatus.SCHEDULED)) & (Article.published_at <= at)
    ids = list(session.scalars(select(Article.id).where(due).order_by(Article.id)))
    _move(session, ids, ArticleStatus.PUBLISHED)
    return len(ids)


def remove(session: Session, source: Source, native_ids: Iterable[str]) -> int:
    """Take articles out that their source took back (draft, private, trash). Returns how many."""
    take_turn(session)
    ids: list[int] = []
    for part in chunks(native_ids):
        query = select(Article.id).join(ArticleAlias, ArticleAlias.article_id == Article.id)
        query = query.where(
            ArticleAlias.scope == source.id, ArticleAlias.kind == "native", ArticleAlias.value.in_(part),
            Article.source_id == source.id, Article.status != str(ArticleStatus.REMOVED),
        )  # fmt: skip
        ids += session.scalars(query)
    _move(session, sorted(set(ids)), ArticleStatus.REMOVED)
    return len(set(ids))


def _move(session: Session, ids: list[int], status: ArticleStatus) -> None:
    """Give articles another status; counts and versions follow."""
    if not ids:
        return
    moved, seen_by = Counter[int](), {0}
    for part in chunks(ids):
        old = dict(session.execute(select(Article.id, Article.status).where(Article.id.in_(part))).all())
        for article, topics in _topics_of(session, part).items():
            seen_by.update(topics)
            more = (status in _COUNTED) - (old[article] in _COUNTED)
            moved.update(dict.fromkeys(topics, more))
        session.execute(update(_articles).where(_articles.c.id.in_(part)).values(status=str(status)))
    move_counts(session, moved)
    bump(session, Tree.load(session).all_up(seen_by))
