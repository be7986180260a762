"""An edition's mails from its snapshot: variant → sections → prepared bytes → one reader's message.

Everything an edition needs was frozen when it was composed (recipe, brand, cards), so that a mail sent again tomorrow
by another process says the same under the same Message-ID. Opens no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from digest import ledger
from digest.audience import Keys, Links, Tokens
from digest.delivery.dkim import Signer
from digest.delivery.message import (
    Addressee,
    Identity,
    MessageFactory,
    Prepared,
    leaving_address,
    message_id,
    verp,
)
from digest.errors import RenderError
from digest.models import Digest, Edition
from digest.rendering import Dressed, Layout, Renderer
from digest.types import HTML_BUDGET, ArticleCard, Brand, Dress, EditionView, RenderedVariant, Section


@dataclass(frozen=True, slots=True)
class Post:
    """What all mail of this installation shares: where its links lead, whose name it bears, which keys sign its ids.

    ``signer``: signs what leaves; None where nothing does, or where the relay signs.
    """

    public_url: str
    mail_domain: str
    keys: Keys
    signer: Signer | None = None
    reads_bounces: bool = False  # mail to our own envelope senders is read, so that mail may unsubscribe

    @property
    def links(self) -> Links:
        return Links(self.public_url, Tokens(self.keys.token))


def brand_to_json(brand: Brand) -> dict[str, Any]:
    return asdict(brand)


def brand_from_json(data: dict[str, Any]) -> Brand:
    links = {key: tuple((label, url) for label, url in data.get(key, ())) for key in ("footer_links", "social_links")}
    return Brand(**{**data, **links})


def view_of(edition: Edition, digest_slug: str, brand: Brand, public_url: str) -> EditionView:
    """What all variants of the edition share."""
    base, recipe = public_url.rstrip("/"), edition.recipe
    return EditionView(
        edition_id=edition.id,
        digest_slug=digest_slug,
        digest_name=recipe["name"],
        layout=recipe["layout"],
        brand=brand,
        local_date=edition.instant.astimezone(ZoneInfo(edition.zone)),
        archive_url=f"{base}/archive/{digest_slug}/{edition.slug}",
        home_url=base + "/",
        subject=recipe["subject"],
        preheader=recipe["preheader"],
        intro=recipe.get("intro", ""),
        closing=recipe.get("closing", ""),
        sponsor=recipe.get("sponsor", ""),
        link_params=recipe.get("link_params", ""),
        place=recipe.get("place", 1),
        worn=frozenset(recipe.get("worn", ())),
    )


class Printer:
    """One edition's mails. Made from the snapshot by `load`; cheap to ask again for the same variant's dress."""

    def __init__(self, layout: Layout, view: EditionView, post: Post, identity: Identity) -> None:
        self.view, self._layout, self._post = view, layout, post
        self.domain = post.mail_domain
        self._links = post.links
        self._factory = MessageFactory(identity, post.signer)
        self._dressed: dict[int, Dressed] = {}
        self.cards: dict[int, ArticleCard] = {}
        self.story_of: dict[int, int] = {}
        self.titles: dict[int, str] = {}

    @classmethod
    def load(cls, session: Session, edition: Edition, renderer: Renderer, post: Post) -> Printer:
        digest_slug = session.get_one(Digest, edition.digest_id).slug
        brand = brand_from_json(edition.recipe["brand"])
        view = view_of(edition, digest_slug, brand, post.public_url)
        printer = cls(renderer.layout(view.layout), view, post, identity_of(edition, view, post))
        for row in ledger.editions.pool(session, edition.id):
            printer.cards[row.article_id] = ArticleCard.from_json(row.card)
            printer.story_of[row.article_id] = row.story_id
        return printer

    def learn_titles(self, session: Session, items: Sequence[tuple[int, int]]) -> None:
        """Read the names of sections not met before."""
        new = {section for article, section in items if article and section} - self.titles.keys()
        if new:
            self.titles |= ledger.readings.section_titles(session, new)

    def dressed(self, dress: int) -> Dressed:
        if dress not in self._dressed:
            self._dressed[dress] = self._layout.open(self.view, Dress.of(dress))
        return self._dressed[dress]

    def render(self, dress: int, items: Sequence[tuple[int, int]], *, show: bool = True) -> RenderedVariant:
        """Items of a variant → its mail. An item of article 0 says how many more found no room, or, below zero, how
        many were left out because these readers had them.

        *show*: with both parts as text too, for people to look at; a sender needs the bytes alone.
        """
        more = sum(n for article, n in items if not article and n > 0)
        had = -sum(n for article, n in items if not article and n < 0)
        rendered = self.dressed(dress).assemble(self.sections(items), more=more, had=had, show=show)
        if rendered.html_size > HTML_BUDGET and rendered.html_body is not None:
            raise RenderError(f"a mail of this edition would have {rendered.html_size:,} of {HTML_BUDGET:,} bytes")
        return rendered

    def sections(self, items: Sequence[tuple[int, int]]) -> tuple[Section, ...]:
        """Items of a variant as sections of stories."""
        stories = [(a, s) for a, s in items if a]
        return ledger.readings.build_sections(stories, self.cards, self.story_of, self.titles)

    def prepare(self, dress: int, items: Sequence[tuple[int, int]]) -> Prepared:
        return self._factory.prepare(self.render(dress, items, show=False))

    def prepare_rendered(self, rendered: RenderedVariant) -> Prepared:
        return self._factory.prepare(rendered)

    def addressee(self, subscriber_id: int, subscription_id: int, address: str, date: datetime) -> Addressee:
        """One reader of this edition. The Message-ID is a function of the delivery: the same on every attempt."""
        return Addressee(
            address=address,
            message_id=message_id(self._post.keys.message_id, self.view.edition_id, subscriber_id, self.domain),
            unsubscribe_url=self._links.unsubscribe(subscription_id),
            preferences_url=self._links.preferences(subscriber_id),
            date=date,
            leaving_address=self._leaving_address(subscription_id),
        )

    def _leaving_address(self, subscription_id: int) -> str:
        if not self._post.reads_bounces:
            return ""
        return leaving_address(subscription_id, self._post.keys.message_id, self.domain)

    def envelope_sender(self, subscriber_id: int) -> str:
        return verp(self.view.edition_id, subscriber_id, self._post.keys.message_id, self.domain)


def identity_of(edition: Edition, view: EditionView, post: Post) -> Identity:
    """From: ``news@`` the mail domain, under the digest's name for itself, else the publication's."""
    recipe, domain = edition.recipe, post.mail_domain
    return Identity(
        from_address=f"news@{domain}",
        from_name=recipe.get("from_name") or view.brand.name or view.digest_name,
        reply_to=recipe.get("reply_to") or "",
        list_id=f"{view.digest_slug}.{domain}",
        list_name=view.digest_name,
        archive_url=f"{post.public_url.rstrip('/')}/archive",
        feedback_id=(str(edition.id), view.digest_slug, "digest"),
    )
