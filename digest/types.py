"""Frozen data that crosses rooms, and the states that rows can be in.

Instants are aware datetimes in UTC; ids are integers; slugs and language tags are lower case.
Nothing here knows SQL, HTML libraries or the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple

# ----------------------------------------------------------------------------- states


class TopicKind(StrEnum):
    CATEGORY = "category"
    TAG = "tag"


class ArticleStatus(StrEnum):
    PUBLISHED = "published"
    SCHEDULED = "scheduled"  # dated in the future; moved to published by ingest and tick alone
    WITHHELD = "withheld"  # published on the site behind a password: counted there, shown nowhere here
    REMOVED = "removed"  # gone at its source


class DigestStatus(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"


class EditionStatus(StrEnum):
    DRAFT = "draft"  # opened, perhaps composed, not yet released
    HELD = "held"  # waits for a person: approval, or a failed gate
    SENDING = "sending"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    FAILED = "failed"


class SubscriptionStatus(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    UNSUBSCRIBED = "unsubscribed"
    SUSPENDED = "suspended"


class Result(StrEnum):
    """What became of one attempt. The first three come off the wire."""

    ACCEPTED = "accepted"  # the next server took responsibility (250). Not: in the inbox
    DEFERRED = "deferred"  # 4yz, or no relay: tried again later
    REJECTED = "rejected"  # 5yz
    UNCERTAIN = "uncertain"  # was on the wire when the process or the connection died; may have arrived
    SUPPRESSED = "suppressed"  # never on the wire: suppressed or unsubscribed since the release
    EXPIRED = "expired"  # deferred until its lifetime ended
    CANCELLED = "cancelled"


class SuppressionReason(StrEnum):
    """Why an address may not be written to."""

    BOUNCE = "bounce"  # it is no more
    COMPLAINT = "complaint"  # its reader called our mail spam
    MANUAL = "manual"
    ERASED = "erased"  # its reader had themselves erased; they alone may come back


#: At most one attempt of a delivery has one of these.
TERMINAL = frozenset({Result.ACCEPTED, Result.REJECTED, Result.SUPPRESSED, Result.EXPIRED, Result.CANCELLED})
#: A delivery that ended so gives its stories back.
GAVE_BACK = frozenset({Result.REJECTED, Result.EXPIRED, Result.SUPPRESSED, Result.CANCELLED})


class Format(IntEnum):
    HTML = 0
    TEXT = 1


#: Append only: a dress is stored as ``language index << 1 | format``.
LANGUAGES = ("en", "de", "ar")


@dataclass(frozen=True, slots=True)
class Dress:
    """How a variant is dressed: language × format, stored as one small integer."""

    language: str = "en"
    format: Format = Format.HTML

    @property
    def code(self) -> int:
        return LANGUAGES.index(self.language) << 1 | self.format

    @classmethod
    def of(cls, code: int) -> Dress:
        return cls(LANGUAGES[code >> 1], Format(code & 1))

    @classmethod
    def speaking(cls, language: str | None, format: Format = Format.HTML) -> Dress:
        """The dress for a language tag: the nearest language that mails are written in, else English."""
        base = (language or "").lower().partition("-")[0]
        return cls(base if base in LANGUAGES else LANGUAGES[0], format)


# ----------------------------------------------------------------------------- articles, as a source gives them


@dataclass(frozen=True, slots=True)
class TopicRef:
    """A topic as an article names it. ``parent`` is the slug of the parent category, where the source tells."""

    kind: TopicKind
    slug: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    url: str
    width: int | None = None
    height: int | None = None
    alt: str = ""
    credit: str = ""


class Enclosure(NamedTuple):
    """A recording, film or document that belongs to an article. ``length``: bytes as its source says; 0: unknown."""

    url: str
    type: str
    length: int = 0


@dataclass(frozen=True, slots=True)
class RawArticle:
    """One article as it came off a source, before the text pipeline. Strings may be hostile.

    ``native_id``: the id inside the source (WordPress post id, path). ``guid``: a feed's own id.
    ``published_at`` None: the source gave no usable date. ``status`` None: decided from the date.
    """

    native_id: str | None = None
    guid: str | None = None
    url: str | None = None
    title: str = ""
    title_is_html: bool = True
    body_html: str = ""
    excerpt_html: str = ""  # hand-written summary, if any
    description: str = ""  # what the page says of itself to search engines: its meta description
    published_at: datetime | None = None
    updated_at: datetime | None = None
    authors: tuple[str, ...] = ()
    topics: tuple[TopicRef, ...] = ()
    assigned: tuple[TopicRef, ...] = ()  # topics that not the site but the source's options say
    image: Image | None = None
    enclosures: tuple[Enclosure, ...] = ()
    language: str | None = None
    sticky: bool = False
    withheld: bool = False  # password-protected
    base_url: str | None = None  # relative links resolve against it; default: url


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item left out, with a reason word (``status_draft``, ``no_identity``, ``unreadable`` …) and what it was."""

    reason: str
    item: str = ""
    detail: str = ""
    native_id: str | None = None  # of an article that its source has taken back (draft, private, trash): it is removed


@dataclass(slots=True)
class Fetched:
    """What one fetch of a source gave. ``items`` is lazy (memory flat): RawArticle or Skipped, in document order.

    ``topics``: the source's own list, those without articles included. ``state`` is what the source wants to
    remember (ETag, watermark); it is stored only when every item was stored.
    ``not_modified``: nothing new since ``state``; items is empty.
    """

    items: Iterator[RawArticle | Skipped]
    topics: Sequence[TopicRef] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    not_modified: bool = False
    title: str | None = None
    language: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CleanArticle:
    """A RawArticle after the text pipeline: safe to store, to show, to put into mail and feeds.

    ``body_html`` is allow-listed HTML with absolute links; ``body_text`` plain text; ``excerpt`` plain text of at
    most 240 characters; ``title`` plain text of at most 300 characters, never empty. ``clue_title``, ``clue_url``: the
    foreign headline and the address of the source that it names, which tell what story it was rewritten from.
    """

    title: str
    url: str
    canonical_url: str
    body_html: str
    body_text: str
    excerpt: str
    word_count: int
    image: Image | None
    enclosures: tuple[Enclosure, ...] = ()
    repaired: bool = False  # debris was removed: a warning for the editor
    clue_title: str | None = None
    clue_url: str | None = None


# ----------------------------------------------------------------------------- stories


class StoryRule(StrEnum):
    """Why an article joined its story."""

    URL = "url"  # the same address
    TITLE = "title"  # the same headline
    CLUE = "clue"  # rewritten from the same source
    BODY = "body"  # headlines and bodies alike
    GUARDED_TITLE = "guarded_title"  # headlines alike, a body being missing
    EDITOR = "editor"


@dataclass(frozen=True, slots=True)
class StoryPlace:
    """Where an article belongs: its story, and for one that joined, the rule by which it matched which member."""

    story: int
    rule: StoryRule | None = None
    matched: int | None = None


@dataclass(frozen=True, slots=True)
class StoryPiece:
    """An article as the grouping of stories sees it. ``story``, ``rule``, ``matched``: where it is so far."""

    id: int
    title: str
    canonical_url: str
    published_at: datetime
    word_count: int
    clue_title: str | None
    clue_url: str | None
    story: int
    rule: StoryRule | None = None
    matched: int | None = None

    @property
    def key(self) -> tuple[datetime, str, int]:
        """Its place in the order of telling; the id has a say only where all else is equal."""
        return self.published_at, self.canonical_url, self.id


# ----------------------------------------------------------------------------- what editions and mails show


@dataclass(frozen=True, slots=True)
class ArticleCard:
    """An article as a mail, page or archive shows it: the snapshot of an edition's pool. Plain text throughout."""

    id: int
    title: str
    url: str
    excerpt: str = ""
    image: Image | None = None
    authors: tuple[str, ...] = ()
    published_at: datetime | None = None
    category: str = ""  # name of the primary category
    word_count: int = 0

    def to_json(self) -> dict[str, Any]:
        image = self.image and {k: getattr(self.image, k) for k in ("url", "width", "height", "alt", "credit")}
        return {
            "id": self.id, "title": self.title, "url": self.url, "excerpt": self.excerpt, "image": image,
            "authors": list(self.authors), "category": self.category, "word_count": self.word_count,
            "published_at": self.published_at.isoformat() if self.published_at else None,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArticleCard:
        when = data.get("published_at")
        return cls(
            id=data["id"], title=data["title"], url=data["url"], excerpt=data.get("excerpt", ""),
            image=Image(**data["image"]) if data.get("image") else None, authors=tuple(data.get("authors", ())),
            published_at=datetime.fromisoformat(when) if when else None,
            category=data.get("category", ""), word_count=data.get("word_count", 0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """An article that an edition may carry. ``topics``: ids, ancestors included; ``primary``: its first category's.

    ``fresh``: still in its grace period; it waits for the next run. ``pinned``: by an editor, so it is here anyway.
    """

    card: ArticleCard
    story_id: int
    topics: tuple[int, ...]
    primary: int | None
    published_at: datetime
    eligible_at: datetime
    sticky: bool = False
    fresh: bool = False
    source: int | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class StoryCard:
    """One story of a mail: the article shown and its ``also`` members (near-duplicates, titles and links only)."""

    lead: ArticleCard
    also: tuple[ArticleCard, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its stories. An empty title: the digest has one section without a heading."""

    title: str
    stories: tuple[StoryCard, ...]


@dataclass(frozen=True, slots=True)
class Brand:
    """The publication row, as templates see it. Colours are ``#rrggbb``."""

    name: str = "Digest"
    url: str = ""
    language: str = "en"
    timezone: str = "UTC"
    site_url: str = ""  # the news site; links to it are our own
    logo_url: str = ""
    logo_dark_url: str = ""
    logo_width: int = 0
    font: str = "mixed"
    postal_address: str = ""
    tagline: str = ""  # one line on the front page: what readers find here
    accent: str = "#0b5fad"
    footer_links: tuple[tuple[str, str], ...] = ()  # (label, url)
    social_links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EditionView:
    """What all variants of an edition share.

    ``subject``/``preheader`` are Jinja templates over ``digest``, ``edition``, ``lead``, ``count``, ``brand``; so are
    the values of ``link_params`` (a query string), over ``digest`` and ``edition``. ``intro``, ``closing`` and
    ``sponsor`` are Markdown. ``place`` and ``worn`` keep two successive editions from carrying the same subject.
    ``archive_url``: the edition in the browser. ``local_date``: the edition's local date and time, aware.
    """

    edition_id: int
    digest_slug: str
    digest_name: str
    layout: str
    brand: Brand
    local_date: datetime
    archive_url: str
    home_url: str
    subject: str = ""
    preheader: str = ""
    intro: str = ""
    closing: str = ""
    sponsor: str = ""
    link_params: str = ""
    place: int = 1  # among the digest's editions of this day
    worn: frozenset[str] = frozenset()  # titles, folded, that the edition before may have led with


#: Decoded HTML a mail may have; Gmail cuts at about 102,000.
HTML_BUDGET = 95_000
#: Personal values of a mail's body; each is one random token per render until the bytes are joined.
PERSONAL_FIELDS = ("unsubscribe_url", "preferences_url", "address")
#: What a preview for nobody shows in their place.
PREVIEW = {"unsubscribe_url": "#unsubscribe", "preferences_url": "#preferences", "address": "reader@example.org"}
#: Bytes that are kept free for each in the byte budget, escaped for HTML. RFC 5321 §4.5.3.1: an address has ≤ 254.
LONGEST = {"unsubscribe_url": 400, "preferences_url": 400, "address": 640}


@dataclass(frozen=True, slots=True)
class Body:
    """One MIME part as prepared quoted-printable bytes around personal values.

    ``segments[0], value(fields[0]), segments[1], …`` — one more segment than fields. Every segment is CRLF-canonical,
    has no line over 76 and none that starts with a dot; values are encoded and joined by the message builder.
    """

    segments: tuple[bytes, ...]
    fields: tuple[str, ...]
    vouched: bool = False  # made of `digest.mime`'s pieces alone: need not be looked through before it goes out


@dataclass(frozen=True, slots=True)
class RenderedVariant:
    """One variant, ready to be personalised. ``html_size``: bytes of the decoded HTML with the longest personal values.

    ``html`` and ``text`` are the whole parts as strings with every personal field shown as its ``PREVIEW`` value.
    For a reader of plain text ``html_body`` is None.
    """

    subject: str
    preheader: str
    html: str
    text: str
    html_body: Body | None
    text_body: Body
    html_size: int


@dataclass(frozen=True, slots=True)
class SystemMail:
    """A mail the system writes by itself to one address: a confirmation and the like. Plain strings, no tokens."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class EditionPage:
    """A released edition as the archive, its web page and the digest feed show it: the house variant, no reader in it.

    ``local``: when it was due, aware, in the digest's zone. ``released``: an instant, whole seconds; when it was
    composed, or let go by a person.
    """

    edition_id: int
    digest_slug: str
    digest_name: str
    slug: str  # 2025-07-14, 2025-07-14-2 …
    subject: str
    local: datetime
    released: datetime
    sections: tuple[Section, ...]

    @property
    def count(self) -> int:
        return sum(len(s.stories) for s in self.sections)


# ----------------------------------------------------------------------------- delivery


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the next server said to one attempt. ``text`` is one line of at most 500 characters, printable."""

    result: Result
    code: int | None = None
    enhanced: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail goes. ``security``: none, starttls or tls. Time-outs in seconds (RFC 5321 §4.5.3.2).

    Among several, those of the lowest ``order`` that can be used take the mail, in the proportion of their ``weight``.
    ``per_minute``: mails that it takes from all machines together; None: no bound.
    """

    host: str
    port: int
    security: Literal["none", "starttls", "tls"] = "none"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # who signed its certificate; None: anybody whom the system trusts
    connections: int = 16
    helo: str = "localhost.localdomain"
    connect_timeout: float = 30.0
    reply_timeout: float = 300.0
    data_timeout: float = 600.0
    name: str = "smtp"
    order: int = 1
    weight: int = 1
    per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class MailPlace:
    """Where a mailbox is and how it is opened. Time-outs in seconds."""

    protocol: Literal["imap", "pop"]
    host: str
    port: int
    security: Literal["none", "starttls", "tls"]
    username: str
    password: str
    folder: str = "INBOX"
    timeout_s: float = 30.0

    def __repr__(self) -> str:  # the password stays out of logs and tracebacks
        return f"MailPlace({self.protocol}, {self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class CaughtMail:
    """A mail that the capture server took: raw bytes as they came, envelope beside them."""

    mail_from: str
    rcpt_to: tuple[str, ...]
    message: bytes
    received_at: datetime


# ----------------------------------------------------------------------------- feeds


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One article in a feed. ``id`` is frozen at first sight: the source's guid if a URL or URN, else canonical URL."""

    id: str
    url: str
    title: str
    published: datetime
    updated: datetime
    html: str = ""
    summary: str = ""
    authors: tuple[str, ...] = ()
    topics: tuple[TopicRef, ...] = ()
    image: Image | None = None
    language: str | None = None
    enclosures: tuple[Enclosure, ...] = ()
    also: tuple[tuple[str, str], ...] = ()  # (title, URL) of the other articles that tell its story


@dataclass(frozen=True, slots=True)
class FeedSelector:
    """Which feed. ``all`` has no slug; ``any`` and ``every`` combine topics, their slug is ``category:a+tag:b``."""

    kind: Literal["all", "category", "tag", "author", "language", "source", "digest", "any", "every"]
    slug: str = ""
    stories: bool = False  # each story once
    month: str = ""  # the archive of one, 2025-07
    page: int = 1  # from 2 on, what the feed itself has no room for

    @property
    def live(self) -> FeedSelector:
        """The feed itself, of which this may be an older part."""
        return replace(self, month="", page=1)


@dataclass(frozen=True, slots=True)
class FeedView:
    """Everything a feed document says; the same view gives RSS, Atom and JSON Feed.

    ``url`` is the feed's address without its extension (``https://x/feeds/tag/climate``); ``updated`` is a whole
    second and never later than the data: the newest of the items' updates, or a fixed date for an empty feed.
    """

    url: str
    title: str
    home_url: str
    description: str
    language: str
    updated: datetime
    items: tuple[FeedItem, ...] = ()
    hubs: tuple[str, ...] = ()
    icon_url: str = ""
    publisher: str = ""  # who answers for items without an author
    current_url: str = ""  # RFC 5005, as ``url``: of an older part, the feed that it is a part of
    older_url: str = ""  # the next part, older: a page of the open month, else the newest closed one
    older_month_url: str = ""
    newer_month_url: str = ""
    archive: bool = False  # a closed month: nothing will be added


# ----------------------------------------------------------------------------- schedules


@dataclass(frozen=True, slots=True)
class Run:
    """One local wall time of a schedule. ``local`` is naive; ``fold`` tells the two 02:30s of an overlap apart."""

    local: datetime
    fold: int
    instant: datetime
    zone: str

    @property
    def local_key(self) -> str:
        return self.local.strftime("%Y-%m-%dT%H:%M")
