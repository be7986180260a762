"""A WordPress export of any size, as a news site of 80 articles a day would give it; the same count, the same bytes.

Its texts are the shipped sample's long articles. Every copy of one has two fifths of its words (three fifths of its
headline's) swapped for others that are about as frequent, so that sentences keep their length, markup and spelling and
no two copies read alike. Around them stands what themes and plugins leave in a body: tables of contents, images in
several sizes, share bars, shortcodes, broken tags. Four in a hundred articles are another's text with a word of the
headline changed and a paragraph left out, one in a hundred is another's to the letter, both hours after it.
"""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from digest.paths import shipped

#: The date of the last article.
NEWEST = datetime(2025, 7, 14, 11, 0, tzinfo=UTC)
PACE = timedelta(days=1) / 80
LONG = 1_000  # characters of a body: shorter ones are teasers
_PIECES = re.compile(r"(<[^>]*>|\W+)")
_SWAPPED = re.compile(r"[A-Za-z][a-z]{3,}")
_REACH = 40  # ranks of frequency
_ITEM = re.compile(r"<item>.*?</item>", re.DOTALL)
_TOC = (
    '<div id="ez-toc-container" class="ez-toc-v2_0_68"><p class="ez-toc-title">Table of Contents</p>'
    '<nav><ul><li><a href="#s1">{0}</a></li></ul></nav></div>\n<h2 id="s1">{0}</h2>\n'
)
_PICTURE = (
    '<figure class="wp-block-image"><img src="https://gazette.example/uploads/{0}.jpg" srcset="'
    "https://gazette.example/uploads/{0}-300x200.jpg 300w, https://gazette.example/uploads/{0}.jpg 1024w,"
    ' https://gazette.example/uploads/{0}-2048.jpg 2048w" width="1024" height="683" alt="{1}"></figure>\n'
)
_SHARE = '\n<div class="sharedaddy sd-sharing"><ul><li><a href="https://social.example/share?u={0}">Share</a></li></ul></div>'
_SHORTCODES = '[caption id="attachment_{0}" width="600"]A caption[/caption]\n[gallery ids="1,2,3"]\n<!--more-->\n'
_DEBRIS = "\n<ul>\n<<li><strong>Plans:</strong> work.</li>\n>\n<< li >< strong >Shared< / strong > use.< / li>>\n</ul>"


@dataclass(frozen=True, slots=True)
class _Text:
    """Pieces of a text; ``words``: (place, rank) of those that may be swapped."""

    pieces: tuple[str, ...]
    words: tuple[tuple[int, int], ...]

    def reworded(self, words: list[str], share: float, dice: random.Random) -> str:
        pieces = list(self.pieces)
        for place, rank in self.words:
            if dice.random() < share:
                new = words[min(max(rank + dice.randrange(-_REACH, _REACH), 0), len(words) - 1)]
                pieces[place] = new.capitalize() if pieces[place][0].isupper() else new
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Base:
    title: _Text
    body: _Text
    rest: str  # creator and labels, as they stand in the sample


@dataclass(frozen=True, slots=True)
class Post:
    """An article before it is written down; ``rest``: its creator and labels, as WXR has them."""

    title: str
    body: str
    rest: str


def write_export(path: Path, count: int) -> Path:
    """Write *count* published articles, the newest of `NEWEST`, and attachments between them."""
    head = _sample()[0]
    with path.open("w", encoding="utf-8") as file:
        file.write(head)
        for n, post in enumerate(posts(count)):
            file.write(_item(n + 1, post, NEWEST - (count - 1 - n) * PACE))
            if n % 50 == 49:
                file.write(_attachment(n + 1))
        file.write("</channel>\n</rss>\n")
    return path


@cache
def _sample() -> tuple[str, list[_Base], list[str]]:
    """What stands before the sample's items, its long articles, and its words, the most frequent first."""
    text = gzip.decompress((shipped("config") / "sample" / "site.xml.gz").read_bytes()).decode()
    items = [item for item in _ITEM.findall(text) if len(_held("content:encoded", item)) >= LONG]
    counted = Counter(w.lower() for item in items for w in _PIECES.split(_held("content:encoded", item)) if _plain(w))
    words = [word for word, _ in sorted(counted.items(), key=lambda c: (-c[1], c[0]))]
    ranks = {word: rank for rank, word in enumerate(words)}
    bases = [_Base(_text(_held("title", i), ranks), _text(_held("content:encoded", i), ranks), _rest(i)) for i in items]
    return text[: text.index("<item>")], bases, words


def _plain(word: str) -> bool:
    return _SWAPPED.fullmatch(word) is not None


def _text(text: str, ranks: dict[str, int]) -> _Text:
    pieces = _PIECES.split(text)
    return _Text(tuple(pieces), tuple((n, ranks[p.lower()]) for n, p in enumerate(pieces) if p.lower() in ranks))


def _held(element: str, item: str) -> str:
    found = re.search(rf"<{element}>(?:<!\[CDATA\[)?(.*?)(?:\]\]>)?</{element}>", item, re.DOTALL)
    return found[1] if found else ""


def _rest(item: str) -> str:
    return "\n".join(re.findall(r"<dc:creator>.*?</dc:creator>|<category .*?</category>", item, re.DOTALL))


def posts(count: int) -> Iterator[Post]:
    """*count* articles, the oldest first."""
    _, bases, words = _sample()
    dice, order, late = random.Random(20_000), list[_Base](), deque[Post](maxlen=100)
    for n in range(count):
        if late and n % 100 in (24, 49, 74, 98, 99):
            post = dice.choice(late)
            yield post if n % 100 == 99 else _rewritten(post, words, dice)
            continue
        if not order:
            order = dice.sample(bases, len(bases))
        base = order.pop()
        title = base.title.reworded(words, 0.6, dice)
        post = Post(title, _dressed(n, title, base.body.reworded(words, 0.4, dice)), base.rest)
        late.append(post)
        yield post


def _rewritten(post: Post, words: list[str], dice: random.Random) -> Post:
    """Another's text: a word of the headline is another, a paragraph is gone."""
    title, paragraphs = post.title.split(" "), post.body.split("</p>")
    title[dice.randrange(len(title))] = dice.choice(words).capitalize()
    del paragraphs[dice.randrange(max(1, len(paragraphs) - 1))]
    return replace(post, title=" ".join(title), body="</p>".join(paragraphs))


def _dressed(n: int, title: str, body: str) -> str:
    """A body with what themes and plugins put around it."""
    if n % 5 < 3:
        body = _PICTURE.format(n, re.sub(r"[<>\"]", "", title)) + body
    if n % 4 == 0:
        body = _TOC.format(title) + body
    if n % 33 == 5:
        body = _SHORTCODES.format(n) + body
    body += _SHARE.format(n) * (n % 3 == 0) + _DEBRIS * (n % 100 == 3)
    return body


def _item(number: int, post: Post, date: datetime) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", post.title.lower()).strip("-")
    stamp = f"{date:%Y-%m-%d %H:%M:%S}"
    return (
        f"<item>\n<title><![CDATA[{post.title}]]></title>\n<link>https://gazette.example/{date:%Y/%m/%d}/{slug}-{number}/</link>\n"
        f"<pubDate>{date:%a, %d %b %Y %H:%M:%S} +0000</pubDate>\n{post.rest}\n"
        f'<guid isPermaLink="false">https://gazette.example/?p={number}</guid>\n<description></description>\n'
        f"<content:encoded><![CDATA[{post.body}]]></content:encoded>\n<excerpt:encoded><![CDATA[]]></excerpt:encoded>\n"
        f"<wp:post_id>{number}</wp:post_id>\n<wp:post_date>{stamp}</wp:post_date>\n"
        f"<wp:post_date_gmt>{stamp}</wp:post_date_gmt>\n<wp:post_modified_gmt>{stamp}</wp:post_modified_gmt>\n"
        f"<wp:post_name>{slug}</wp:post_name>\n<wp:status>publish</wp:status>\n<wp:post_type>post</wp:post_type>\n"
        f"<wp:post_password></wp:post_password>\n<wp:is_sticky>0</wp:is_sticky>\n</item>\n"
    )


def _attachment(number: int) -> str:
    return (
        f"<item>\n<title>photo {number}</title>\n<wp:post_id>{1_000_000 + number}</wp:post_id>\n"
        "<wp:status>inherit</wp:status>\n<wp:post_type>attachment</wp:post_type>\n</item>\n"
    )
