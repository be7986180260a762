"""Topics: categories and tags, their tree, their counts, their order.

A topic's count (`Topic.articles`) is moved with every change of its articles, so that no page, order or edition has
to count a million of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, and_, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from digest.catalogue.shared import chunks, insert_missing
from digest.catalogue.versions import bump
from digest.models import ArticleAuthor, Source, Topic, TopicName, TopicSlug
from digest.text import slugify, strip_controls
from digest.types import TopicKind, TopicRef

Key = tuple[str, str]  # (kind, slug)
MAX_NAME = 200
_EDITORS = 1 << 30  # an editor's spelling counts as that of more articles than there will ever be


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic as lists show it. ``parent``: the slug of its parent; ``count``: its own articles, on the site."""

    id: int
    kind: str
    slug: str
    name: str
    parent: str | None
    count: int


class Tree:
    """The categories' parents, as they are in this transaction."""

    def __init__(self, parents: Mapping[int, int | None]) -> None:
        self._parents = parents
        self._children: dict[int, list[int]] = {}
        for child, parent in parents.items():
            if parent is not None:
                self._children.setdefault(parent, []).append(child)

    @classmethod
    def load(cls, session: Session) -> Tree:
        return cls(dict(session.execute(select(Topic.id, Topic.parent_id).where(Topic.kind == "category")).all()))

    def up(self, topic: int) -> list[int]:
        """The topic and its ancestors, nearest first."""
        found = [topic]
        while (parent := self._parents.get(found[-1])) is not None and parent not in found:
            found.append(parent)
        return found

    def down(self, topic: int) -> set[int]:
        """The topic and all below it."""
        found, rest = {topic}, [topic]
        while rest:
            below = [c for c in self._children.get(rest.pop(), ()) if c not in found]
            found.update(below)
            rest.extend(below)
        return found

    def all_up(self, topics: Iterable[int]) -> set[int]:
        return {above for topic in topics for above in self.up(topic)}


# ----------------------------------------------------------------------------- making


@lru_cache(maxsize=4_096)  # a site has the same few topics on every article
def tidy(ref: TopicRef) -> TopicRef | None:
    """The topic with a slug that can stand in an address and a name of one line; None if nothing is left of it."""
    slug = slugify(ref.slug) or slugify(ref.name)
    if not slug:
        return None
    name = " ".join(strip_controls(ref.name).split())[:MAX_NAME]
    parent = slugify(ref.parent) if ref.parent and ref.kind is TopicKind.CATEGORY else None
    return TopicRef(ref.kind, slug, name or slug, parent if parent != slug else None)


def ensure_topics(session: Session, refs: Iterable[TopicRef]) -> dict[Key, int]:
    """Return the ids of *refs* by (kind, slug), making what is missing; parents follow the refs that name one.

    A topic that was merged answers with the one it went into, a slug that a topic had with that topic. A parent that is
    not known yet is left for the next ref that names it; one that would close a circle is not taken.
    """
    wanted: dict[Key, TopicRef] = {}
    for ref in filter(None, map(tidy, refs)):
        known = wanted.get((ref.kind, ref.slug))
        if known is None or (known.parent is None and ref.parent):
            wanted[ref.kind, ref.slug] = ref
    rows = _rows(session, wanted)
    missing = [r for key, r in sorted(wanted.items()) if key not in rows]
    if missing:
        made = [{"kind": str(r.kind), "slug": r.slug, "name": r.name, "hidden": False, "articles": 0} for r in missing]
        insert_missing(session, Topic.__table__, made)  # type: ignore[arg-type]
        rows.update(_rows(session, [(r.kind, r.slug) for r in missing]))
    _set_parents(session, [r for r in wanted.values() if r.parent], rows)
    return {key: row.merged_into or row.id for key, row in rows.items()}


@dataclass(slots=True)
class _Row:
    id: int
    parent_id: int | None
    merged_into: int | None


def _rows(session: Session, keys: Iterable[Key]) -> dict[Key, _Row]:
    found: dict[Key, _Row] = {}
    for part in chunks(keys, 1_000):
        query = select(Topic.kind, Topic.slug, Topic.id, Topic.parent_id, Topic.merged_into)
        by_kind = [
            and_(Topic.kind == str(kind), Topic.slug.in_([s for k, s in part if k == kind]))
            for kind in sorted({k for k, _ in part})
        ]
        for kind, slug, topic, parent, merged in session.execute(query.where(or_(*by_kind))):
            found[kind, slug] = _Row(topic, parent, merged)
        if rest := {(str(kind), slug) for kind, slug in part if (kind, slug) not in found}:
            found.update(_renamed(session, rest))
    return found


def _renamed(session: Session, keys: Collection[Key]) -> dict[Key, _Row]:
    """The topics that had these slugs once."""
    query = select(TopicSlug.kind, TopicSlug.slug, Topic.id, Topic.parent_id, Topic.merged_into)
    query = query.join(Topic, Topic.id == TopicSlug.topic_id).where(TopicSlug.slug.in_([slug for _, slug in keys]))
    rows = session.execute(query)
    return {(kind, slug): _Row(topic, above, into) for kind, slug, topic, above, into in rows if (kind, slug) in keys}


# ----------------------------------------------------------------------------- spellings


def count_spellings(session: Session, came: Counter[tuple[int, str, str]]) -> bool:
    """Count that articles came to topics under (topic, slug, name); tell whether a topic has another name now.

    The most used spelling is a topic's name; of equals the one it has stays, else the first by the alphabet. What came
    under an old slug, or under that of a topic that was merged, has no say in it.
    """
    renamed = False
    for part in chunks(sorted({key[0] for key in came})):
        query = select(Topic.id, Topic.slug, Topic.name).where(Topic.id.in_(part))
        called = {row[0]: (row[1], row[2]) for row in session.execute(query)}
        rows: list[dict[str, Any]] = [
            {"topic_id": topic, "name": name, "count": more}
            for (topic, slug, name), more in sorted(came.items())
            if topic in called and called[topic][0] == slug
        ]
        _add_spellings(session, rows)
        renamed |= _settle_names(session, {row["topic_id"]: called[row["topic_id"]][1] for row in rows})
    return renamed


def _add_spellings(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        make = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        statement = make(TopicName.__table__)  # type: ignore[arg-type]
        statement = statement.on_conflict_do_update(
            index_elements=["topic_id", "name"], set_={"count": TopicName.count + statement.excluded.count}
        )
        session.execute(statement, rows)


def _settle_names(session: Session, names: Mapping[int, str]) -> bool:
    """Give topics, with the names they have now, the spelling that most articles use."""
    spelled: dict[int, dict[str, int]] = {topic: {} for topic in names}
    query = select(TopicName.topic_id, TopicName.name, TopicName.count).where(TopicName.topic_id.in_(names))
    for topic, name, count in session.execute(query):
        spelled[topic][name] = count
    moves = []
    for topic, name in names.items():
        best = min(spelled[topic], key=lambda n: (-spelled[topic][n], n != name, n), default=name)
        if best != name:
            moves.append({"topic": topic, "called": best})
    if moves:
        table = Topic.__table__
        statement = update(table).where(table.c.id == bindparam("topic")).values(name=bindparam("called"))  # type: ignore[arg-type]
        session.execute(statement, moves)
    return bool(moves)


def name_for_good(session: Session, topic: Topic, name: str) -> None:
    """Give a topic the name that an editor wants: no number of articles outweighs it."""
    session.execute(
        update(TopicName)
        .where(TopicName.topic_id == topic.id, TopicName.count >= _EDITORS)
        .values(count=TopicName.count - _EDITORS)
    )
    count_spellings(session, Counter({(topic.id, topic.slug, name): _EDITORS}))
    session.refresh(topic)


def _set_parents(session: Session, refs: Collection[TopicRef], rows: Mapping[Key, _Row]) -> None:
    """Move topics below the parents their refs name, as long as the tree stays one."""
    if not refs:
        return
    parents = {(str(TopicKind.CATEGORY), r.parent) for r in refs if r.parent}
    known = {**_rows(session, [p for p in parents if p not in rows]), **rows}
    tree: dict[int, int | None] | None = None
    moves, touched = [], set[int]()
    for ref in refs:
        row, above = known[ref.kind, ref.slug], known.get((str(TopicKind.CATEGORY), ref.parent or ""))
        if above is None or row.merged_into or row.parent_id == (parent := above.merged_into or above.id):
            continue
        if tree is None:
            tree = dict(session.execute(select(Topic.id, Topic.parent_id).where(Topic.kind == "category")).all())
        if row.id not in Tree(tree).up(parent):
            touched.update(Tree(tree).up(row.id))
            tree[row.id] = parent
            touched.update(Tree(tree).up(row.id))
            moves.append({"topic": row.id, "above": parent})
    if moves:
        table = Topic.__table__
        statement = update(table).where(table.c.id == bindparam("topic")).values(parent_id=bindparam("above"))  # type: ignore[arg-type]
        session.execute(statement, sorted(moves, key=lambda move: move["topic"]))
        bump(session, touched)  # articles have come into the new parent's feed and left the old one's


# ----------------------------------------------------------------------------- reading


def _shown() -> Select[Topic]:
    return select(Topic).where(Topic.hidden.is_(False), Topic.merged_into.is_(None))


def topic_rows(session: Session, kind: str | None = None, include_empty: bool = False) -> list[TopicRow]:
    """Topics with their counts, categories first, then by count and slug; hidden and merged ones are left out."""
    query = _shown()
    if kind is not None:
        query = query.where(Topic.kind == kind)
    if not include_empty:
        query = query.where(Topic.articles > 0)
    query = query.order_by(Topic.kind, Topic.articles.desc(), Topic.slug)  # "category" sorts before "tag"
    topics = list(session.scalars(query))
    return _topic_rows(session, topics)


def _topic_rows(session: Session, topics: Collection[Topic]) -> list[TopicRow]:
    parents = {t.parent_id for t in topics if t.parent_id is not None}
    slugs: dict[int, str] = {}
    for part in chunks(parents):
        slugs.update(session.execute(select(Topic.id, Topic.slug).where(Topic.id.in_(part))).all())
    return [TopicRow(t.id, t.kind, t.slug, t.name, slugs.get(t.parent_id or 0), t.articles) for t in topics]


def row_of(session: Session, topic: Topic) -> TopicRow:
    """One topic as lists show it, hidden or not."""
    return _topic_rows(session, [topic])[0]


def topic_order(session: Session, kind: str | None = None) -> list[int]:
    """Topic ids in the one order that sections of every mail follow: categories, then tags, the most used first."""
    query = _shown().order_by(Topic.kind, Topic.articles.desc(), Topic.slug)
    if kind is not None:
        query = query.where(Topic.kind == kind)
    return list(session.scalars(query.with_only_columns(Topic.id)))


def hidden_topics(session: Session) -> frozenset[int]:
    """Ids of the topics that an editor hid."""
    return frozenset(session.scalars(select(Topic.id).where(Topic.hidden)))


def became(session: Session, topics: Iterable[int]) -> dict[int, int]:
    """Each of these ids → the topic it is now: the one it went into where it was merged."""
    now = {topic: topic for topic in topics}
    for part in chunks(sorted(now)):
        gone = select(Topic.id, Topic.merged_into).where(Topic.id.in_(part), Topic.merged_into.is_not(None))
        now |= {topic: into for topic, into in session.execute(gone) if into is not None}
    return now


def find_topic(session: Session, kind: str, slug: str) -> Topic | None:
    """The topic of that kind that has this slug or had it; hidden and merged ones too."""
    found = session.scalar(select(Topic).where(Topic.kind == kind, Topic.slug == slug))
    if found is not None:
        return found
    had = select(TopicSlug.topic_id).where(TopicSlug.kind == kind, TopicSlug.slug == slug)
    return session.scalar(select(Topic).where(Topic.id == had.scalar_subquery()))


class Slugs(set[str]):
    """Slugs to suggest; others are understood besides: those that topics had, and those of hidden ones."""

    def __init__(self, shown: Iterable[str], understood: Iterable[str] = ()) -> None:
        super().__init__(shown)
        self.understood = frozenset(understood)

    def __contains__(self, slug: object) -> bool:
        return super().__contains__(slug) or slug in self.understood


def known_slugs(session: Session) -> dict[str, set[str]]:
    """What a rule may name, by field. Languages are not listed: an article may come in any of them."""
    shown: dict[str, list[str]] = {"category": [], "tag": []}
    silent: dict[str, list[str]] = {"category": [], "tag": []}
    for kind, slug, hidden, merged in session.execute(
        select(Topic.kind, Topic.slug, Topic.hidden, Topic.merged_into).order_by(Topic.slug)
    ):
        (silent if hidden or merged else shown)[kind].append(slug)
    for kind, slug in session.execute(select(TopicSlug.kind, TopicSlug.slug)):
        silent[kind].append(slug)
    known: dict[str, set[str]] = {kind: Slugs(shown[kind], silent[kind]) for kind in shown}
    known["author"] = set(session.scalars(select(ArticleAuthor.slug).distinct()))
    known["source"] = set(session.scalars(select(Source.slug)))
    return known


def ids_of(session: Session, kind: str, slugs: Collection[str]) -> set[int]:
    """Ids of the topics of that kind under *slugs*, old ones too; a merged one is the one it went into."""
    rows = _rows(session, [(kind, slug) for slug in dict.fromkeys(slugs)])
    return {row.merged_into or row.id for row in rows.values()}
