"""One post of WordPress's REST API → one article. Every field may be missing, closed, or of another type."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from digest.sources import reading
from digest.text import clean_title, nearest, slugify
from digest.types import Image, RawArticle, Skipped, TopicKind, TopicRef

_KINDS = {"category": TopicKind.CATEGORY, "post_tag": TopicKind.TAG}


class Term(NamedTuple):
    """A category or tag as the site lists it. ``parent``: a number, 0 for none."""

    kind: str
    slug: str
    name: str
    parent: int = 0

    def ref(self, terms: Mapping[int, Term]) -> TopicRef | None:
        above = terms.get(self.parent)
        parent = slugify(above.slug or clean_title(above.name)) if above else None
        return reading.topic(TopicKind(self.kind), self.name, self.slug, parent or None)


def looks_like_post(thing: Any) -> bool:
    return isinstance(thing, dict) and "title" in thing and "content" in thing


def modified(post: Mapping[str, Any], zone: Any) -> datetime | None:
    """The later of its two dates: a scheduled post appears without being modified."""
    pairs = (("modified_gmt", "modified"), ("date_gmt", "date"))
    found = [reading.read_date(post.get(gmt)) or reading.read_date(post.get(own), zone) for gmt, own in pairs]
    return max((when for when in found if when), default=None)


def made(post: Any, terms: Mapping[int, Term], zone: Any) -> RawArticle | Skipped:
    """Return the article that a post is, or why it is none."""
    if not looks_like_post(post):
        return Skipped("unreadable", str(post)[:80], "it is no post")
    number = str(post["id"]) if isinstance(post.get("id"), int) else None
    title = _rendered(post["title"])
    if post.get("type", "post") != "post":
        return Skipped(f"type_{slugify(str(post['type']))}", clean_title(title, limit=80))
    if (status := str(post.get("status") or "publish")) not in ("publish", "future"):
        return Skipped(f"status_{slugify(status)}", clean_title(title, limit=80), native_id=number)
    content = post["content"]
    return RawArticle(
        native_id=number,
        guid=reading.short_id(html.unescape(_rendered(post.get("guid")))) or None,
        url=_string(post.get("link")) or None,
        title=title,
        body_html=_rendered(content),
        excerpt_html=_rendered(post.get("excerpt")),
        description=_string(_mapping(post.get("yoast_head_json")).get("description")),
        published_at=reading.read_date(post.get("date_gmt")) or reading.read_date(post.get("date"), zone),
        updated_at=reading.read_date(post.get("modified_gmt")) or reading.read_date(post.get("modified"), zone),
        authors=_authors(post),
        topics=_topics(post, terms),
        image=_image(post),
        language=_string(post.get("lang")) or _string(_mapping(post.get("yoast_head_json")).get("og_locale")) or None,
        sticky=post.get("sticky") is True,
        withheld=isinstance(content, dict) and content.get("protected") is True,
    )


def _string(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _rendered(value: Any) -> str:
    """{"rendered": "…"} since version 2 of the API; a bare string in captures of its beta."""
    return _string(value.get("rendered")) if isinstance(value, dict) else _string(value)


def _embedded(post: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """What is embedded under a name; where the site refuses it, an error stands there instead."""
    listed = _mapping(post.get("_embedded")).get(name)
    things = listed if isinstance(listed, list) else []
    return [t for t in things if isinstance(t, dict) and not (isinstance(t.get("code"), str) and "message" in t)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


# ----------------------------------------------------------------------------- people


def _authors(post: Mapping[str, Any]) -> tuple[str, ...]:
    """Co-authors where a plugin lists them, else the author, else what the SEO plugin says where users are closed."""
    coauthors = [term.get("name") for term in _terms_of(post) if term.get("taxonomy") == "author"]
    named = [author.get("name") for author in _embedded(post, "author")]
    yoast = _mapping(post.get("yoast_head_json"))
    return (
        reading.people(coauthors)
        or reading.people(named)
        or reading.people([yoast.get("author") if isinstance(yoast.get("author"), str) else None])
    )


# ----------------------------------------------------------------------------- topics


def _terms_of(post: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    listed = _mapping(post.get("_embedded")).get("wp:term")
    for group in listed if isinstance(listed, list) else ():
        yield from (term for term in group if isinstance(term, dict)) if isinstance(group, list) else ()


def _topics(post: Mapping[str, Any], terms: Mapping[int, Term]) -> tuple[TopicRef, ...]:
    """Categories, the primary one first, then tags; each once."""
    own = {term["id"]: term for term in _terms_of(post) if isinstance(term.get("id"), int)}
    numbers = [n for name in ("categories", "tags") for n in _list(post.get(name)) if isinstance(n, int)]
    found: dict[tuple[TopicKind, str], TopicRef] = {}
    for number in dict.fromkeys([*_primary(post, own), *numbers, *own]):
        if ref := _ref(number, own.get(number), terms):
            found.setdefault((ref.kind, ref.slug), ref)
    return tuple(sorted(found.values(), key=lambda ref: ref.kind is not TopicKind.CATEGORY))


def _ref(number: int, term: Mapping[str, Any] | None, terms: Mapping[int, Term]) -> TopicRef | None:
    known = terms.get(number)
    if term is None:
        return known.ref(terms) if known else None
    kind = _KINDS.get(str(term.get("taxonomy")))
    if kind is None:
        return None
    slug, name = str(term.get("slug") or ""), str(term.get("name") or "")
    parent = known.parent if known and known.kind == kind else term.get("parent")
    return Term(kind, slug, name, parent if isinstance(parent, int) else 0).ref(terms)


def _primary(post: Mapping[str, Any], own: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """The primary category of the SEO plugin: a field of its own, else the last crumb that is one of the categories."""
    for value in (_mapping(post.get("meta")).get("_yoast_wpseo_primary_category"), post.get("primary_category")):
        number = value.get("id", value.get("term_id")) if isinstance(value, dict) else value
        if str(number or "").isdecimal() and int(str(number)) in own:
            return [int(str(number))]
    crumbs = list(_crumbs(post))
    names = {clean_title(str(t.get("name"))): n for n, t in own.items() if t.get("taxonomy") == "category"}
    return [names[crumb] for crumb in reversed(crumbs) if crumb in names][:1]


def _crumbs(post: Mapping[str, Any]) -> Iterator[str]:
    graph = _mapping(_mapping(post.get("yoast_head_json")).get("schema")).get("@graph")
    for node in _list(graph):
        if isinstance(node, dict) and node.get("@type") == "BreadcrumbList":
            for element in _list(node.get("itemListElement")):
                yield clean_title(str(_mapping(element).get("name") or ""))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# ----------------------------------------------------------------------------- pictures


def _image(post: Mapping[str, Any]) -> Image | None:
    """The featured picture in the size nearest to ours."""
    for media in _embedded(post, "wp:featuredmedia"):
        if best := nearest(_sizes(media)):
            credit = _string(_mapping(_mapping(media.get("media_details")).get("image_meta")).get("credit"))
            return replace(best, alt=_string(media.get("alt_text")), credit=credit)
    named = [_mapping(media) for media in _list(_mapping(post.get("yoast_head_json")).get("og_image"))]
    sizes = (Image(_string(m.get("url")), _pixels(m.get("width")), _pixels(m.get("height"))) for m in named)
    if best := nearest(image for image in sizes if image.url):
        return best
    bare = _string(post.get("jetpack_featured_media_url"))
    return Image(bare) if bare else None


def _sizes(media: Mapping[str, Any]) -> Iterator[Image]:
    details = _mapping(media.get("media_details"))
    if whole := _string(media.get("source_url")):
        yield Image(whole, _pixels(details.get("width")), _pixels(details.get("height")))
    for size in _mapping(details.get("sizes")).values():
        if isinstance(size, dict) and _string(size.get("source_url")):
            yield Image(_string(size["source_url"]), _pixels(size.get("width")), _pixels(size.get("height")))


def _pixels(value: Any) -> int | None:
    text = str(value if value is not None else "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < len(text) < 6 else None
