"""A folder of Markdown with front matter, as Hugo, Jekyll and Eleventy write it; or one such file.

    folder → files, by path → front matter | body → shortcodes out → HTML

An article's own id is its path in the folder; its address is what the front matter says, else made by the option
``url``, else by the site's own configuration beside the folder. One bad file is one Skipped.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

from digest.errors import SourceError
from digest.fetch import Fetcher
from digest.sources import frontmatter, reading
from digest.sources.frontmatter import FrontMatterError, is_set, text_of, words
from digest.text import decode, markdown, slugify
from digest.types import Fetched, Image, RawArticle, Skipped, TopicKind, TopicRef

SUFFIXES = frozenset((".md", ".markdown", ".mdown", ".mkd"))
_HTML = frozenset((".html", ".htm"))
_PASSED_OVER = frozenset(("node_modules", "_site", "public", "_includes", "_layouts", "layouts", "themes", "_drafts"))
_MAX_BYTES = 20_000_000
_MAX_BODY = 1_000_000  # more than is ever kept of a text
_DATED = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})-(.+)")
_SHORTCODE = re.compile(r"\{\{[<%].{0,2000}?[%>]\}\}|\{\{.{0,2000}?\}\}|\{%.{0,2000}?%\}|\{#.{0,2000}?#\}", re.DOTALL)
_CONFIGS = (
    "hugo.toml",
    "hugo.yaml",
    "hugo.yml",
    "hugo.json",
    "config.toml",
    "config.yaml",
    "config.yml",
    "_config.yml",
)
# Jekyll's names for patterns; categories are left out, as the addresses of most sites do.
_STYLES = {
    "date": "/:year/:month/:day/:title.html", "pretty": "/:year/:month/:day/:title/",
    "ordinal": "/:year/:y_day/:title.html", "none": "/:title.html",
}  # fmt: skip
_CATEGORIES = ("categories", "category", "topics", "topic")
_TAGS = ("tags", "tag")
_DESCRIPTIONS = ("description", "meta_description", "metaDescription", "seo.description", "meta.description")


class Markdown:
    """Options: ``url`` ("https://x.example/:year/:month/:slug/"), ``categories_from`` and ``tags_from`` (fields)."""

    kind = "markdown"

    def __init__(self, location: str, options: Mapping[str, Any], fetcher: Fetcher) -> None:
        self.location, self.zone = location, reading.zone_of(options)
        self.pattern = str(options.get("url") or "")
        self.sections: dict[str, str] = {}  # patterns of Hugo's sections
        self.categories = tuple(options.get("categories_from") or _CATEGORIES)
        self.tags = tuple(options.get("tags_from") or _TAGS)

    def fetch(self, state: Mapping[str, Any]) -> Fetched:
        if reading.is_remote(self.location):
            raise SourceError(
                "bad_address", "a folder of Markdown is read from this machine; give the path of the folder"
            )
        root = reading.local_path(self.location)
        files = _files(root)
        seen = _stamp(root, files)
        known = reading.remembered(state, self.location)
        if known.get("folder") == seen:
            return Fetched(iter(()), state=known, not_modified=True)
        if root.is_file():
            self._check(root)
        site = _site(root)
        if not self.pattern:
            self.pattern, self.sections = text_of(site, "url"), _sections(site)
        fetched = Fetched(
            self._items(root, files), state={**reading.fresh_state(self.location), "folder": seen},
            title=text_of(site, "title") or None, language=text_of(site, "languageCode", "lang") or None,
        )  # fmt: skip
        if not self.pattern:
            fetched.warnings.append("nothing says where these articles are published; set the source's option url")
        return fetched

    def gone(self, ids: Sequence[str]) -> list[str]:
        """Which articles have no file any more."""
        root = reading.local_path(self.location)
        return [i for i in ids if not (root / i).is_file()] if root.is_dir() else []

    @staticmethod
    def _check(path: Path) -> None:
        """One file by itself must be what it is said to be."""
        try:
            if frontmatter.split(decode(path.read_bytes()[:_MAX_BYTES])) is None:
                raise FrontMatterError("it begins with no front matter")
        except FrontMatterError as e:
            raise SourceError("unreadable", f"{path} cannot be read as Markdown: {e}") from e

    def _items(self, root: Path, files: Sequence[Path]) -> Iterator[RawArticle | Skipped]:
        for path in files:
            name = path.name if path == root else path.relative_to(root).as_posix()
            try:
                made = self._made(path, name)
            except (OSError, ValueError, TypeError, RecursionError, IndexError, KeyError, AttributeError) as e:
                made = Skipped("unreadable", name[:200], reading.first_line(e))
            if made is not None:
                yield made

    def _made(self, path: Path, name: str) -> RawArticle | Skipped | None:
        """An article, or why it is none; None for a page of HTML without front matter and for lists of a section."""
        if path.stem == "_index":
            return None
        if path.stat().st_size > _MAX_BYTES:
            return Skipped("too_large", name)
        try:
            parts = frontmatter.split(decode(path.read_bytes()))
        except FrontMatterError as e:
            return Skipped("bad_front_matter", name, str(e))
        if parts is None:
            return None if path.suffix.lower() in _HTML else Skipped("no_front_matter", name)
        fields, body = parts
        return _taken_back(fields, name) or self._article(path, name, fields, body)

    def _article(self, path: Path, name: str, fields: dict[str, Any], body: str) -> RawArticle:
        file_date, slug = _of_file_name(path)
        published = self._date(fields, "date", "pubDate", "published", "published_at") or file_date
        appears = self._date(fields, "publishDate", "publishdate")  # Hugo shows it no earlier, however it is dated
        published = max(filter(None, (published, appears)), default=None)
        slug = text_of(fields, "slug") or slug
        url = self._url(fields, name, slug, published, dated=file_date is not None)
        return RawArticle(
            native_id=name,
            guid=reading.short_id(text_of(fields, "guid")) or None,
            url=url,
            title=text_of(fields, "title", "headline") or slug.replace("-", " ").capitalize(),
            title_is_html=False,
            body_html=self._html(body, path.suffix.lower()),
            excerpt_html=_escaped(text_of(fields, "summary", "excerpt", "deck", "subtitle")),
            description=_escaped(text_of(fields, *_DESCRIPTIONS)),
            published_at=published,
            updated_at=self._date(fields, "lastmod", "updated", "modified", "last_modified_at", "date_updated"),
            authors=reading.people(_people(fields)),
            topics=self._topics(fields),
            image=_image(fields),
            language=text_of(fields, "language", "lang") or None,
            sticky=is_set(fields, "sticky") or is_set(fields, "pinned"),
            base_url=url,
        )

    def _date(self, fields: Mapping[str, Any], *names: str) -> datetime | None:
        found = (reading.read_date(text_of(fields, name), self.zone) for name in names)
        return next((when for when in found if when), None)

    def _html(self, body: str, suffix: str) -> str:
        body = _SHORTCODE.sub("", body)[:_MAX_BODY]
        return body if suffix in _HTML else markdown.to_html(body)

    def _topics(self, fields: Mapping[str, Any]) -> tuple[TopicRef, ...]:
        """Categories from the first field that names any, then tags, each once."""
        taxonomies = fields.get("taxonomies")  # Zola keeps them there
        fields = {**taxonomies, **fields} if isinstance(taxonomies, dict) else fields
        categories = next((named for f in self.categories if (named := words(fields.get(f)))), [])
        tags = [word for f in self.tags for word in words(fields.get(f))]
        refs = [reading.topic(TopicKind.CATEGORY, c) for c in categories]
        refs += [reading.topic(TopicKind.TAG, t) for t in tags]
        return tuple({(ref.kind, ref.slug): ref for ref in reversed([r for r in refs if r])}.values())[::-1]

    # ------------------------------------------------------------------------- addresses

    def _url(
        self, fields: Mapping[str, Any], name: str, slug: str, date: datetime | None, *, dated: bool
    ) -> str | None:
        """Where the article is published, as far as that can be known."""
        said = text_of(fields, "url", "permalink", "link", "canonical_url", "canonical")
        if reading.is_remote(said):
            return said
        site = re.sub(r"(?<=[^/:])/?:[a-z_]+.*$", "/", self.pattern)
        if not site:
            return None
        if said.startswith("/") and ":" not in said and "{" not in said:
            return urljoin(site, said)
        pattern = self.pattern if self.pattern.count(":") > site.count(":") else f"{site.rstrip('/')}/{_usual(dated)}"
        page, title = _page(name), slug
        if said.startswith("/:"):
            pattern = f"{site.rstrip('/')}{_tidy(said)}"
        elif (own := self.sections.get(page.partition("/")[0])) is not None:  # Hugo's slug is made of the title
            pattern = f"{site.rstrip('/')}/{own.lstrip('/')}"
            title = text_of(fields, "slug") or slugify(text_of(fields, "title")) or slug
        return _filled(pattern, page, slug, date, title)


def _usual(dated: bool) -> str:
    """What Jekyll does with a file that is named after its day, and Hugo and Eleventy with any other."""
    return ":year/:month/:day/:slug.html" if dated else ":path/"


def _page(name: str) -> str:
    """The path of a page: Hugo and Eleventy keep pages in a folder that no address shows."""
    return name.removeprefix("content/")


def _sections(site: Mapping[str, Any]) -> dict[str, str]:
    """Hugo's patterns by section: [permalinks], in newer sites below "page"."""
    found = site.get("permalinks")
    found = found if isinstance(found, dict) else {}
    inner = found.get("page")
    listed = {**found, **(inner if isinstance(inner, dict) else {})}
    return {name: _tidy(pattern) for name, pattern in listed.items() if isinstance(pattern, str) and ":" in pattern}


def _tidy(pattern: str) -> str:
    """Hugo's and Jekyll's names for the same."""
    pattern = pattern.replace(":output_ext", ".html").replace(":categories/", "")
    return re.sub(r":(?:slugorfilename|slugorcontentbasename|contentbasename)\b", ":filename", pattern)


def _filled(pattern: str, name: str, slug: str, date: datetime | None, title: str) -> str | None:
    """An address by its pattern; None where it wants a date that is not there."""
    folder = name.rpartition("/")[0]
    path = folder if re.search(r"(?:^|/)index\.\w+$", name) else f"{folder}/{slug}".lstrip("/")
    section = name.partition("/")[0] if "/" in name else ""
    values = {"slug": title, "title": title, "filename": slug, "path": path, "section": section, "sections": folder}
    if date is not None:
        values |= {"year": f"{date:%Y}", "month": f"{date:%m}", "day": f"{date:%d}", "short_year": f"{date:%y}"}
        values |= {"i_month": str(date.month), "i_day": str(date.day), "y_day": f"{date:%j}", "yearday": f"{date:%-j}"}
    try:
        return re.sub(r"(?<=[/.-]):([a-z_]+)", lambda m: quote(values[m[1]]), pattern)
    except KeyError:
        return None


def _of_file_name(path: Path) -> tuple[datetime | None, str]:
    """The date that Jekyll keeps in the name of a file, and the rest of the name as a slug."""
    stem = path.parent.name if path.stem == "index" else path.stem
    found = _DATED.fullmatch(stem)
    if found is None:
        return None, slugify(stem)
    try:
        return datetime(int(found[1]), int(found[2]), int(found[3]), tzinfo=UTC), slugify(found[4])
    except ValueError:
        return None, slugify(stem)


# ----------------------------------------------------------------------------- fields


def _taken_back(fields: Mapping[str, Any], name: str) -> Skipped | None:
    """A draft, or an article whose time is over: neither is on the site."""
    hidden = any(is_set(fields, name) for name in ("draft", "eleventyExcludeFromCollections"))
    if hidden or any(
        str(fields.get(name, "")).strip().lower() in ("false", "no") for name in ("published", "permalink")
    ):
        return Skipped("status_draft", name, native_id=name)
    over = reading.read_date(text_of(fields, "expirydate", "expiryDate", "expires"))
    if over is not None and over <= datetime.now(UTC):
        return Skipped("expired", name, native_id=name)
    return None


def _people(fields: Mapping[str, Any]) -> list[str]:
    for name in ("authors", "author", "byline"):
        value = fields.get(name)
        if found := words([value] if isinstance(value, str) else value):
            return found
    return []


def _image(fields: Mapping[str, Any]) -> Image | None:
    listed = fields.get("images")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    names = ("featured_image", "image", "image.src", "image.url", "image.path", "cover.image", "cover", "hero",
             "header.image", "thumbnail")  # fmt: skip
    url = text_of(fields, *names) or first
    return Image(url, alt=text_of(fields, "image_alt", "image.alt", "cover.alt")) if url else None


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


# ----------------------------------------------------------------------------- the folder


def _files(root: Path) -> list[Path]:
    """The files that may hold an article, by path."""
    if not root.exists():
        raise SourceError("not_found", f"there is nothing at {root}; correct the source's location")
    if root.is_file():
        return [root]
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if not n.startswith(".") and n not in _PASSED_OVER]
        found += [Path(folder) / f for f in files if Path(f).suffix.lower() in SUFFIXES | _HTML and f[0] != "."]
    if not any(path.suffix.lower() in SUFFIXES for path in found):
        raise SourceError("unreadable", f"there is no Markdown file in {root}; give the folder that holds the articles")
    return sorted(found)


def _stamp(root: Path, files: Sequence[Path]) -> str:
    """What tells whether anything in the folder has changed. A file that is gone meanwhile is one more change."""
    said = hashlib.sha256()
    for path in files:
        try:
            stat = path.stat()
            said.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            continue
    return said.hexdigest()


def _site(root: Path) -> dict[str, Any]:
    """What the generator's own configuration says, in the folder or up to three above it: url, title, language."""
    folder = root if root.is_dir() else root.parent
    for place in [folder, *list(folder.parents)[:3]]:
        for name in _CONFIGS:
            if (path := place / name).is_file() and (found := _config(path)):
                return found
    return {}


def _config(path: Path) -> dict[str, Any] | None:
    """None if it is not the configuration of a site."""
    form = {".toml": "toml", ".json": "json"}.get(path.suffix, "yaml")
    try:
        said = frontmatter.parsed(decode(path.read_bytes()[: frontmatter.MAX_CHARS]), form)
    except (FrontMatterError, OSError):
        return None
    url = text_of(said, "baseURL", "baseurl") if not path.name.startswith("_") else ""
    url = url or f"{text_of(said, 'url').rstrip('/')}{text_of(said, 'baseurl')}"
    if not reading.is_remote(url):
        return None
    permalink = text_of(said, "permalink")
    permalink = _STYLES.get(permalink, permalink if ":" in permalink else "")
    return {**said, "url": f"{url.rstrip('/')}/{_tidy(permalink).lstrip('/')}"}
