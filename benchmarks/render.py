"""Mails from templates: an edition, its variants, and the messages to its readers.

* **edition**: the HTML of 30 articles in each layout, once the layout is compiled: ≤ 1.5 ms of CPU. Beside it what
  programs do that compile for each edition: Jinja, then mjml-python (or MJML's own compiler, where there is Node), then
  premailer, on the same template with the same values. Told, too: both parts as a sender has them, in quoted-printable.
* **batch**: 500 readers with 150 distinct variants, sent over SMTP into a sink that costs next to nothing: our CPU from
  claim to the last recorded outcome, beside 500 readers with one: ≤ 1.5 ×.
* **70,000 variants** of an edition, batch by batch as a sender makes them: < 200 MB more than before.
* **message**: headers and both parts for one reader, ≤ 25 µs of CPU; beside the standard library's `email.message`
  with the same headers and parts: ≥ 200 × as many a second. Memory beside a tenth of the messages: flat.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from typing import Any

from benchmarks.shared.databases import databases
from benchmarks.shared.measuring import Figure, called, peak_mb, turns
from benchmarks.shared.peers import Inlined
from benchmarks.shared.sink import fast_sink
from digest.audience import Keys
from digest.db import Database
from digest.delivery.message import Addressee, Identity, MessageFactory
from digest.delivery.smtp import Pool
from digest.editions import Editor
from digest.paths import shipped
from digest.rendering import Layout, Renderer, sandbox
from digest.rendering.source import read
from digest.rendering.trial import whole_values
from digest.sending import LedgerStore, Post, Sender, Sent, run_async
from digest.types import ArticleCard, Dress, Relay, Section, StoryCard
from tests import build, mjml_reference
from tests.mail_sample import VIEW, cards

SIZES = {
    "layouts": 4, "articles": 30, "editions": 20, "node": 1, "readers": 500, "variants": 150, "batches": 8,
    "many": 70_000, "messages": 40, "held": 100_000, "apart": 1,
}  # fmt: skip
TINY = {
    "layouts": 1, "articles": 6, "editions": 1, "node": 0, "readers": 6, "variants": 2, "batches": 1,
    "many": 40, "messages": 2, "held": 200, "apart": 0,
}  # fmt: skip

_LAYOUT = "cards"
_PICKS = 10  # stories of a mail of the batches
_TOPICS = 30
_CONNECTIONS = 16
_NOW = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)


def run(sizes: dict[str, int]) -> Iterator[Figure]:
    yield from _editions(sizes)
    yield _batches(sizes)
    yield from _variants(sizes)
    yield from _messages(sizes)


# ----------------------------------------------------------------------------- editions


def _editions(sizes: dict[str, int]) -> Iterator[Figure]:
    renderer = Renderer()
    for name in [_LAYOUT] if sizes["layouts"] == 1 else renderer.layouts():
        yield from _edition(renderer, name, sizes)


def _edition(renderer: Renderer, name: str, sizes: dict[str, int]) -> Iterator[Figure]:
    layout = renderer.layout(name)
    told = [_sections(sizes["articles"], n) for n in range(sizes["editions"])]
    editions = itertools.cycle(told)
    forms = ["lead" if "lead" in layout.optional else "card"] + ["card"] * (sizes["articles"] - 1)
    lines = {"subject": "A subject", "preheader": "What else there is"}

    def values() -> dict[str, Any]:
        return whole_values(VIEW, layout.words["en"], next(editions), forms) | lines

    def ours() -> float:
        return _cpu_ms(lambda: [sandbox.render(layout.html, values()) for _ in range(10)]) / 10

    peer = Inlined(_source(renderer, name))
    pairs = turns(sizes["editions"], ours, lambda: _cpu_ms(lambda: peer.render(values())))
    what = f"edition of {sizes['articles']} articles, {name}"
    yield Figure(f"{what}, HTML, CPU", [(mine, None) for mine, _ in pairs], "ms", at_most=1.5)
    yield Figure(f"{what}, beside mjml-python and premailer", pairs, "ms", at_most=0.25)
    if name == _LAYOUT and sizes["node"] and mjml_reference.there():
        with mjml_reference.installed() as reference:
            node = turns(sizes["editions"], ours, lambda: float(reference.ask(peer.filled(values()))["ms"]))
        yield Figure(f"{what}, beside MJML on Node", node, "ms", at_most=0.25)
    whole = [_cpu_ms(partial(_ready, layout, sections)) for sections in told]
    yield Figure(f"{what}, both parts, ready for the wire, CPU", [(ms, None) for ms in whole], "ms")


def _ready(layout: Layout, sections: tuple[Section, ...]) -> None:
    layout.open(VIEW, Dress()).assemble(sections, show=False)


def _source(renderer: Renderer, name: str) -> str:
    """The MJML of a shipped layout, with what it includes."""
    path = renderer.files(name)["edition.mjml"]
    return read(path.name, path.read_text(), lambda file: (shipped("templates") / file).read_text()).folded()


def _sections(articles: int, edition: int) -> tuple[Section, ...]:
    """Three sections of real articles, with other titles and addresses in each edition: nothing is known before."""
    stories = [StoryCard(card) for card in _cards(articles, edition)]
    third = -(-articles // 3)
    return tuple(Section(f"Part {n // third + 1}", tuple(stories[n : n + third])) for n in range(0, articles, third))


def _cards(articles: int, edition: int) -> list[ArticleCard]:
    found = []
    for n, card in zip(range(articles), itertools.cycle(cards()), strict=False):
        told = f"{card.title} ({edition}.{n})"
        found.append(
            replace(card, id=n + 1, title=told, url=f"{card.url}?{edition}-{n}", excerpt=f"{n}. {card.excerpt}")
        )
    return found


# ----------------------------------------------------------------------------- batches


def _batches(sizes: dict[str, int]) -> Figure:
    with databases() as made, made.fresh("SQLite") as url, fast_sink() as port:
        office = _Office(url, port, sizes["readers"], sizes["variants"])
        pairs = turns(sizes["batches"], lambda: office.send("many"), lambda: office.send("one"))
        office.database.close()
    name = f"batch of {sizes['readers']} readers with {sizes['variants']} variants beside one, CPU"
    return Figure(name, pairs[1:] or pairs, "ms", at_most=1.5)  # in the first turn pages come in


class _Office:
    """Two digests with so many readers each: one mail for all of ``one``, so many different mails for ``many``."""

    def __init__(self, url: str, port: int, readers: int, variants: int) -> None:
        self.database, self._relay = Database(url), Relay("127.0.0.1", port, connections=_CONNECTIONS)
        self._post = Post("https://news.example", "news.example", Keys(b"t" * 32, b"m" * 32))
        self._renderer, self._at, self._readers = Renderer(), _NOW, readers
        self._editor = Editor(self.database, self._renderer, self._post, live=True)
        chance = random.Random(30)
        with self.database.transaction() as session:
            build.publication(session)
            self._topics = [build.topic(session, f"Topic {n}").name for n in range(_TOPICS)]
            topics = [build.topic(session, name) for name in self._topics]
            tastes = [chance.sample(topics, _PICKS) for _ in range(variants)]
            for slug in ("one", "many"):
                digest = build.digest(session, slug, maximum=_PICKS, repeat="others", created_at=_NOW)
                for n in range(readers):
                    build.subscription(session, digest, topics=tastes[n % variants] if slug == "many" else ())

    def send(self, slug: str) -> float:
        """An edition of new articles, and the CPU of its sender from claim to the last outcome; milliseconds."""
        self._at += timedelta(days=2)
        with self.database.transaction() as session:
            for card, topic in zip(_cards(_TOPICS, self._at.day), self._topics, strict=True):
                when = self._at - timedelta(hours=2)
                build.article(
                    session, categories=[topic], title=card.title, excerpt=card.excerpt, authors=card.authors,
                    published_at=when,
                )  # fmt: skip
        edition = self._editor.open_manual(slug, self._at)
        self._editor.compose(edition)
        self._editor.release(edition)
        store = LedgerStore(self.database, self._renderer, self._post, live=True)
        sender = Sender(store, lambda grants: Pool(self._relay, grants), connections=_CONNECTIONS)
        began = time.process_time()  # of all threads
        sent: Sent = run_async(sender.run)
        spent = (time.process_time() - began) * 1000
        assert sent.answers.total() == self._readers, "not all were sent"
        self._editor.finish()
        return spent


# ----------------------------------------------------------------------------- variants


def _variants(sizes: dict[str, int]) -> Iterator[Figure]:
    given = {"articles": 200, "variants": sizes["many"], "batch": sizes["variants"]}
    made = called("benchmarks.render:make_variants", apart=sizes["apart"], **given).result
    yield Figure(f"{sizes['many']:,} variants of an edition, memory more", [(made["mb"], None)], "MB", at_most=200)
    yield Figure("one variant more, CPU", [(made["us"], None)], "µs")


def make_variants(articles: int, variants: int, batch: int) -> dict[str, float]:
    """Make distinct variants as a sender does: those of a batch at a time, from the fragments of one edition."""
    layout = Renderer().layout(_LAYOUT)
    stories = [StoryCard(card) for card in _cards(articles, 0)]
    factory = MessageFactory(_SENDER)
    chance = random.Random(70_000)
    before, began = peak_mb(), time.thread_time()
    dressed = layout.open(VIEW, Dress())
    for _ in range(0, variants, batch):
        held = [
            factory.prepare(dressed.assemble((Section("", tuple(chance.sample(stories, 15))),), show=False))
            for _ in range(batch)
        ]
    assert held
    return {"mb": max(peak_mb() - before, 0.1), "us": (time.thread_time() - began) / variants * 1e6}


# ----------------------------------------------------------------------------- messages

_SENDER = Identity(
    "news@news.example", "The Desk", "desk@news.example", "morning.news.example", "Morning",
    "https://news.example/archive", ("7", "morning", "digest"),
)  # fmt: skip


def _messages(sizes: dict[str, int]) -> Iterator[Figure]:
    readers = _readers()
    rendered = Renderer().layout(_LAYOUT).open(VIEW, Dress()).assemble(_sections(24, 0))
    prepared = MessageFactory(_SENDER).prepare(rendered)

    def ours() -> float:
        to = list(itertools.islice(readers, 500))
        return _cpu_ms(lambda: [len(b"".join(prepared.build(reader))) for reader in to]) / len(to) * 1000

    def stdlib() -> float:
        to = next(readers)
        return _cpu_ms(lambda: _by_email(rendered.subject, rendered.text, rendered.html, to)) * 1000

    pairs = turns(sizes["messages"], ours, stdlib)
    size = len(b"".join(prepared.build(next(readers)))) // 1000
    yield Figure(f"message of {size} KB to one reader, CPU", [(mine, None) for mine, _ in pairs], "µs", at_most=25)
    rates = [(1e6 / mine, 1e6 / peer) for mine, peer in pairs]
    yield Figure("messages a second, beside email.message", rates, "", at_least=200)
    held = [
        called("benchmarks.render:make_messages", apart=sizes["apart"], count=count).peak_mb
        for count in (sizes["held"], sizes["held"] // 10)
    ]
    name = f"{sizes['held']:,} messages, memory beside {sizes['held'] // 10:,}"
    yield Figure(name, [(held[0], held[1])], "MB", at_most=1.05)


def make_messages(count: int) -> int:
    """Build so many messages, one after the other; how many bytes they had."""
    prepared = MessageFactory(_SENDER).prepare(
        Renderer().layout(_LAYOUT).open(VIEW, Dress()).assemble(_sections(24, 0))
    )
    return sum(sum(map(len, prepared.build(reader))) for reader in itertools.islice(_readers(), count))


def _readers() -> Iterator[Addressee]:
    for n in itertools.count():
        yield Addressee(
            f"reader{n}@example.org", f"<{n:040x}@news.example>", f"https://news.example/unsubscribe/{n:086x}",
            f"https://news.example/preferences/{n:086x}", _NOW, f"u+{n}.{n:024x}@news.example",
        )  # fmt: skip


def _by_email(subject: str, text: str, page: str, reader: Addressee) -> bytes:
    """The same mail as the standard library makes it."""
    message = EmailMessage(policy=SMTP.clone(max_line_length=998))  # else it spoils List-Unsubscribe
    message["From"], message["Reply-To"] = f"{_SENDER.from_name} <{_SENDER.from_address}>", _SENDER.reply_to
    message["To"], message["Subject"], message["Date"] = reader.address, subject, reader.date
    message["Message-ID"] = reader.message_id
    message["List-Id"] = f"{_SENDER.list_name} <{_SENDER.list_id}>"
    message["List-Archive"], message["Feedback-ID"] = f"<{_SENDER.archive_url}>", ":".join(_SENDER.feedback_id)
    message["List-Unsubscribe"] = f"<{reader.unsubscribe_url}>, <mailto:{reader.leaving_address}?subject=unsubscribe>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    filled = [
        part.replace("#unsubscribe", reader.unsubscribe_url).replace("#preferences", reader.preferences_url)
        for part in (text, page)
    ]
    message.set_content(filled[0], cte="quoted-printable")
    message.add_alternative(filled[1], subtype="html", cte="quoted-printable")
    return message.as_bytes()


def _cpu_ms(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000
