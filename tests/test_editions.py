"""From a schedule that strikes to an edition that is out: once, on time, or skipped with a reason."""

from __future__ import annotations

import email
import email.policy
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from digest import ledger
from digest import models as m
from digest.db import Database
from digest.delivery.memory import Posted
from digest.editions import DigestFields, Editor, Wishes, exclude_article, pin_article, unmark_article
from digest.errors import RenderError, UsageError
from digest.rendering import Renderer
from digest.sending import LedgerStore
from digest.types import Dress, Format
from tests import build
from tests.office import POST, Office, arrivals, newsroom, renderer

AT = build.T.replace(hour=7) + timedelta(days=1)
DAY = timedelta(days=1)


def statuses(office: Office) -> list[tuple[str, str, str | None]]:
    return [(e.local_time, e.status, e.reason) for e in office.editions()]


def article(db: Database, **columns: object) -> int:
    with db.transaction() as session:
        return build.article(session, **columns).id


def picked(office: Office, edition: int) -> list[int]:
    with office.db.reading() as session:
        return [c.article_id for c in ledger.readings.carried(session, edition) if c.position is not None]


# ----------------------------------------------------------------------------- opening


def test_a_run_makes_one_edition_however_often_one_looks(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    assert office.tick(AT - timedelta(minutes=1)) == []
    office.tick(AT)
    office.tick(AT)
    office.tick(AT + timedelta(hours=3))
    assert statuses(office) == [("2025-07-15T07:00", "finished", None)]


def test_ten_processes_at_once_make_one_edition(database: Database) -> None:
    addresses = newsroom(database)
    office = Office(database)
    start, trouble = threading.Barrier(10), []

    def tick() -> None:
        start.wait()
        try:
            office.editor.tick(AT)
        except Exception as e:
            trouble.append(e)

    threads = [threading.Thread(target=tick) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert trouble == []
    office.send()
    assert statuses(office) == [("2025-07-15T07:00", "finished", None)]
    assert arrivals(office, addresses) == [1, 1, 1]


def test_down_for_three_days_one_late_edition_and_the_rest_told(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    office.tick(AT + 2 * DAY + timedelta(hours=2))
    assert statuses(office) == [
        ("2025-07-15T07:00", "skipped", "missed; 2025-07-17T07:00 stands for it"),
        ("2025-07-16T07:00", "skipped", "missed; 2025-07-17T07:00 stands for it"),
        ("2025-07-17T07:00", "finished", None),
    ]


def test_a_paused_digest_skips_with_a_reason(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    office.setup.pause("morning")
    office.tick(AT)
    office.setup.resume("morning")
    article(database, published_at=AT + timedelta(hours=1))
    office.tick(AT + DAY)
    assert statuses(office) == [
        ("2025-07-15T07:00", "skipped", "the digest is paused"), ("2025-07-16T07:00", "finished", None),
    ]  # fmt: skip


def test_readers_in_their_own_zones_each_at_their_seven_oclock(database: Database) -> None:
    with database.transaction() as session:
        build.publication(session, timezone="Europe/Berlin")
        morning = build.digest(session, zone="subscriber", created_at=build.T)
        schedule = build.schedule_of(session, morning).id
        build.article(session, age=timedelta(hours=1))
        for zone in ("Europe/Berlin", "Europe/Paris", "Asia/Tokyo"):
            build.subscription(
                session, morning, build.subscriber(session, f"{zone[-5:].strip('/')}@example.org"), zone=zone
            )
            ledger.editions.add_clock(session, schedule, zone)
    office = Office(database)
    for hour in range(36):
        office.tick(build.T + timedelta(hours=hour))
    assert [(e.instant, e.zones, e.archived) for e in office.editions() if e.status == "finished"] == [
        (datetime(2025, 7, 14, 22, tzinfo=UTC), ["Asia/Tokyo"], False),
        (datetime(2025, 7, 15, 5, tzinfo=UTC), ["Europe/Berlin", "Europe/Paris"], True),
    ]
    assert sorted(office.inboxes().values()) == [1, 1, 1]


def test_the_archive_follows_the_publication_to_another_zone(database: Database) -> None:
    with database.transaction() as session:
        build.publication(session, timezone="Europe/Berlin")
        build.digest(session, zone="subscriber", created_at=build.T)
        build.article(session, age=timedelta(hours=1))
    office = Office(database)
    office.tick(build.T)
    with database.transaction() as session:
        session.execute(update(m.Publication).values(timezone="Asia/Tokyo"))
    for hour in range(1, 24):
        office.tick(build.T + timedelta(hours=hour))
    assert [(e.zone, e.archived, e.reason) for e in office.editions()] == [
        ("Asia/Tokyo", True, None), ("Europe/Berlin", False, "nobody reads it in this zone"),
    ]  # fmt: skip


# ----------------------------------------------------------------------------- what is skipped, and why


def test_a_changed_schedule_has_no_runs_before_its_change(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    office.tick(AT)
    office.setup.change("morning", DigestFields(schedule="0 5 * * *"))
    assert office.tick(AT + timedelta(minutes=10)) == []
    article(database, published_at=AT + timedelta(hours=1))
    office.tick(AT + DAY)
    assert statuses(office) == [("2025-07-15T07:00", "finished", None), ("2025-07-16T05:00", "finished", None)]


def test_readers_follow_a_schedule_into_their_own_zones_and_back(database: Database) -> None:
    addresses = newsroom(database, readers=2)
    with database.transaction() as session:
        session.execute(
            update(m.Subscriber).where(m.Subscriber.address == addresses[0]).values(timezone="America/New_York")
        )
    office = Office(database)
    office.tick(AT - timedelta(hours=1))
    office.setup.change("morning", DigestFields(timezone="subscriber"))
    office.tick(AT - timedelta(minutes=1))
    office.tick(AT)
    assert arrivals(office, addresses) == [0, 1]
    office.tick(AT + timedelta(hours=4))
    assert arrivals(office, addresses) == [1, 1]
    office.setup.change("morning", DigestFields(timezone="Europe/Berlin"))
    article(database, published_at=AT + timedelta(hours=1))
    office.tick(AT + timedelta(hours=5))
    office.tick(AT + timedelta(hours=22))
    assert arrivals(office, addresses) == [2, 2]


def test_the_first_reader_of_a_zone_owes_it_no_earlier_runs(database: Database) -> None:
    with database.transaction() as session:
        build.publication(session)
        morning = build.digest(session, zone="subscriber", created_at=build.T)
        schedule = build.schedule_of(session, morning).id
        build.article(session, age=timedelta(hours=1))
        ledger.editions.add_clock(session, schedule, "UTC")
    office = Office(database)
    office.tick(AT + 2 * DAY)
    before = len(office.editions())
    joined = AT + 2 * DAY + timedelta(hours=1)
    with database.transaction() as session:
        reader = build.subscriber(session, "tokyo@example.org")
        build.subscription(
            session, session.get_one(m.Digest, 1), reader, zone="Asia/Tokyo", created_at=joined, confirmed_at=joined
        )
        ledger.editions.add_clock(session, schedule, "Asia/Tokyo")
    office.tick(joined + timedelta(minutes=1))
    assert len(office.editions()) == before
    office.tick(AT + 2 * DAY + timedelta(hours=15))  # 07:00 in Tokyo
    assert [(e.local_time, e.zones) for e in office.editions()[before:]] == [("2025-07-18T07:00", ["Asia/Tokyo"])]


def test_nothing_matches(database: Database) -> None:
    newsroom(database, articles=0)
    office = Office(database)
    office.tick(AT)
    assert statuses(office) == [("2025-07-15T07:00", "skipped", "no recent article matches")]


def test_under_the_minimum_with_and_without_readers(database: Database) -> None:
    newsroom(database, readers=0, articles=2, minimum=3)
    office = Office(database)
    office.tick(AT)
    with database.transaction() as session:
        build.subscription(session, session.scalars(select(m.Digest)).one())
    office.tick(AT + DAY)
    assert [reason for _, _, reason in statuses(office)] == [
        "2 stories new, at least 3 wanted",
        "no reader has 3 stories that are new to them",
    ]


def test_a_skipped_edition_rolls_its_articles_over(database: Database) -> None:
    newsroom(database, articles=2, minimum=3)
    office = Office(database)
    office.tick(AT)
    article(database, published_at=AT + timedelta(hours=2))
    office.tick(AT + DAY)
    assert [s for _, s, _ in statuses(office)] == ["skipped", "finished"]
    assert len(picked(office, office.editions()[1].id)) == 3


def test_without_readers_an_edition_is_still_published(database: Database) -> None:
    newsroom(database, readers=0)
    office = Office(database)
    office.tick(AT)
    assert statuses(office) == [("2025-07-15T07:00", "finished", None)]
    with database.reading() as session:
        page = ledger.edition_page(session, "morning", "2025-07-15", live=True)
    assert page is not None
    assert page.count == 4
    assert page.subject


# ----------------------------------------------------------------------------- what is picked


def test_an_article_in_its_grace_waits_for_the_next_edition(database: Database) -> None:
    newsroom(database, articles=1)
    office = Office(database)
    fresh = article(database, published_at=AT - timedelta(minutes=5))
    office.tick(AT)
    assert fresh not in picked(office, office.editions()[0].id)
    office.tick(AT + DAY)
    assert picked(office, office.editions()[1].id) == [fresh]


def test_a_late_and_backdated_article_is_picked(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    office.tick(AT)
    late = article(
        database,
        published_at=AT - timedelta(days=3),
        first_seen_at=AT + timedelta(hours=1),
        eligible_at=AT + timedelta(hours=1),
    )
    office.tick(AT + DAY)
    assert picked(office, office.editions()[1].id) == [late]


def test_what_is_older_than_the_look_back_is_never_picked(database: Database) -> None:
    newsroom(database, articles=1)
    office = Office(database)
    old = article(database, published_at=AT - timedelta(days=8))
    office.tick(AT)
    assert old not in picked(office, office.editions()[0].id)


def test_an_article_taken_down_after_composing_is_not_sent(database: Database) -> None:
    addresses = newsroom(database, articles=2, approve=True)
    office = Office(database)
    office.tick(AT)
    with database.transaction() as session:
        gone = session.scalars(select(m.Article.id).order_by(m.Article.id)).first()
        session.execute(update(m.Article).where(m.Article.id == gone).values(status="removed"))
    office.editor.approve(office.editions()[0].id)
    office.send()
    assert gone not in picked(office, office.editions()[0].id)
    assert b"Story 1" not in office.outbox.posted[0].message
    assert arrivals(office, addresses) == [1, 1, 1]


EVENING = AT + timedelta(hours=12)
LEFT_OUT = {
    "en": "4 stories you already had were left out.",
    "de": "4 Beiträge, die Sie schon hatten, sind nicht noch einmal dabei.",
    "ar": "لم تُدرج 4 مقالات سبق أن وصلتك.",
}


def two_digests(db: Database) -> None:
    """Four articles in the morning, two more by the evening. Readers of both in three languages, one of texts; and
    ``new@``, who reads the evening's alone."""
    newsroom(db, readers=0)
    dresses = [Dress(language).code for language in LEFT_OUT] + [Dress("de", Format.TEXT).code]
    with db.transaction() as session:
        morning = session.scalars(select(m.Digest)).one()
        evening = build.digest(session, "evening", cron="0 19 * * *", created_at=AT)
        ledger.editions.add_clock(session, build.schedule_of(session, evening).id, "UTC")
        for n, dress in enumerate(dresses):
            reader = build.subscriber(session, f"both{n}@example.org")
            for digest in (morning, evening):
                build.subscription(session, digest, reader, dress=dress)
        build.subscription(session, evening, build.subscriber(session, "new@example.org"))


def parts(posted: Posted) -> list[str]:
    """Text and HTML, if it has that, as a mail program reads them; blanks as it shows them."""
    message = email.message_from_bytes(posted.message, policy=email.policy.default)
    found = [message.get_body((kind,)) for kind in ("plain", "html")]
    return [" ".join(part.get_content().split()) for part in found if part is not None]


def test_a_mail_tells_how_many_stories_other_digests_brought(database: Database) -> None:
    two_digests(database)
    office = Office(database)
    office.tick(AT)
    with database.transaction() as session:
        for hours in (1, 2):
            build.article(
                session, title=f"At noon {hours}", categories=["Africa"], published_at=AT + timedelta(hours=hours)
            )
    shown = office.preview("evening", EVENING, "both1@example.org")
    assert shown.data["had"] == 4
    assert shown.rendered is not None
    assert LEFT_OUT["de"] in shown.rendered.text
    assert office.preview("evening", EVENING).data["had"] == 0
    before = len(office.outbox.posted)
    office.tick(EVENING)
    mails = {posted.rcpt.decode(): parts(posted) for posted in office.outbox.posted[before:]}
    assert {address: len(both) for address, both in mails.items()} == {
        "both0@example.org": 2, "both1@example.org": 2, "both2@example.org": 2, "both3@example.org": 1,
        "new@example.org": 2,
    }  # fmt: skip
    for n, language in enumerate((*LEFT_OUT, "de")):
        for part in mails[f"both{n}@example.org"]:
            assert LEFT_OUT[language] in part
            assert "At noon 2" in part
            assert "Story 1" not in part
    assert all("left out" not in part and "Story 1" in part for part in mails["new@example.org"])


def test_a_digest_says_nothing_of_what_its_own_editions_brought(database: Database) -> None:
    two_digests(database)
    office = Office(database)
    office.tick(EVENING)
    article(database, title="Overnight", categories=["Africa"], published_at=EVENING + timedelta(hours=2))
    before = len(office.outbox.posted)
    office.tick(EVENING + DAY)
    mails = [
        part for posted in office.outbox.posted[before:] if posted.rcpt == b"new@example.org" for part in parts(posted)
    ]
    assert len(mails) == 2
    assert all("Overnight" in part and "left out" not in part for part in mails)


def test_a_long_mail_takes_shorter_forms_and_leaves_the_rest_for_the_next_edition(database: Database) -> None:
    newsroom(database, readers=1, articles=2, maximum=100)
    with database.transaction() as session:
        for n in range(98):
            build.article(session, title=f"{n} {'title ' * 40}", url=f"https://news.example/{n}/{'x' * 700}",
                          categories=["Africa"], age=timedelta(hours=9))  # fmt: skip
    office = Office(database)
    office.tick(AT)
    first = picked(office, office.editions()[0].id)
    assert 40 < len(first) < 100
    [posted] = office.outbox.posted
    assert f"{100 - len(first)} more".encode() in posted.message.replace(b"=\r\n", b"")
    office.tick(AT + DAY)
    second = picked(office, office.editions()[1].id)
    assert not set(first) & set(second)
    assert second


# ----------------------------------------------------------------------------- pinned, kept out


def reasons(office: Office, at: datetime, email: str | None = None) -> dict[int, str]:
    data = office.preview("morning", at, email).data
    assert len({c["id"] for c in data["candidates"]}) == len(data["candidates"]), "one verdict each"
    return {c["id"]: f"{c['verdict']}: {c['reason']}" for c in data["candidates"]}


def test_a_pin_brings_an_article_in_and_first_once_for_each_reader(database: Database) -> None:
    newsroom(database, articles=2, categories=["africa"])
    office = Office(database)
    old = article(database, published_at=AT - 90 * DAY)
    fresh = article(database, published_at=AT - timedelta(minutes=1))
    for pinned in (old, fresh):
        pin_article(database, pinned, "morning", None, AT)
    assert list(reasons(office, AT).items())[:2] == [(n, "in: pinned by an editor") for n in (fresh, old)]
    office.tick(AT)
    assert picked(office, office.editions()[0].id)[:2] == [fresh, old], "whatever its age, rule and grace"
    article(database, categories=["Africa"], published_at=AT + timedelta(hours=1))
    assert reasons(office, AT + DAY)[old] == "out: already in an earlier edition"


def test_a_pin_does_not_overrule_what_a_reader_chose_nor_what_is_not_published(database: Database) -> None:
    newsroom(database, articles=2)
    office = Office(database)
    sport, planned = (article(database, categories=["Sport"], status=s, published_at=AT - 2 * DAY)
                      for s in ("published", "scheduled"))  # fmt: skip
    for pinned in (sport, planned):
        pin_article(database, pinned, "morning", None, AT)
    with database.transaction() as session:
        morning = session.scalars(select(m.Digest)).one()
        reader = build.subscriber(session, "africa@example.org")
        build.subscription(session, morning, reader, topics=[build.topic(session, "Africa")])
    assert reasons(office, AT, "africa@example.org")[sport] == "out: not of the chosen topics"
    assert reasons(office, AT)[sport] == "in: pinned by an editor"
    assert planned not in reasons(office, AT)


def test_a_pin_ends(database: Database) -> None:
    newsroom(database, articles=2)
    old = article(database, published_at=AT - 90 * DAY)
    pin_article(database, old, "morning", AT - timedelta(minutes=1), build.T)
    assert old not in reasons(Office(database), AT)
    with pytest.raises(UsageError, match="has ended already"):
        pin_article(database, old, "morning", AT, AT)


def test_what_an_editor_keeps_out_is_out_with_that_reason(database: Database) -> None:
    newsroom(database, articles=3, approve=True)
    office = Office(database)
    here, all_over, late = list(reasons(office, AT))
    exclude_article(database, here, "morning", AT)
    exclude_article(database, all_over, None, AT)
    assert list(reasons(office, AT).values()) == ["out: removed by an editor"] * 2 + ["in: picked"]
    unmark_article(database, here, "morning")
    assert reasons(office, AT)[here] == "in: picked"
    office.tick(AT)
    exclude_article(database, late, None, AT)
    office.editor.approve(office.editions()[0].id)
    assert picked(office, office.editions()[0].id) == [here], "an edition that waits for approval still listens"


def test_the_last_mark_holds_and_out_of_all_is_out(database: Database) -> None:
    newsroom(database, articles=1)
    office = Office(database)
    [only] = reasons(office, AT)
    assert [x.kind for x in exclude_article(database, only, "morning", AT)] == ["exclude"]
    assert [x.kind for x in pin_article(database, only, "morning", None, AT)] == ["pin"]
    assert [(x.kind, x.digest) for x in exclude_article(database, only, None, AT)] == [("exclude", None)]
    with pytest.raises(UsageError, match="out of every digest"):
        pin_article(database, only, "morning", None, AT)
    assert unmark_article(database, only, None) == []
    assert reasons(office, AT) == {only: "in: picked"}
    for wrong in (lambda: exclude_article(database, 999, None, AT), lambda: unmark_article(database, 999, None)):
        with pytest.raises(UsageError, match="there is no article 999"):
            wrong()
    with pytest.raises(UsageError, match="did you mean morning"):
        pin_article(database, only, "mornin", None, AT)


# ----------------------------------------------------------------------------- quotas, sections, score


def wish(office: Office, **wishes: object) -> None:
    office.setup.change("morning", DigestFields(selection=Wishes(**wishes)))  # type: ignore[arg-type]


def test_a_quota_holds_in_what_goes_out_and_the_rest_rolls_over(database: Database) -> None:
    addresses = newsroom(database, articles=4)
    office = Office(database)
    sport = article(database, categories=["Sport"], published_at=AT - timedelta(hours=40))
    wish(office, quotas=("category:africa=2",))
    office.tick(AT)
    wish(office, quotas=("",))
    office.tick(AT + DAY)
    first, second = office.editions()
    with database.reading() as session:
        pool = {p.article_id: p.reason for p in ledger.editions.pool(session, first.id)}
    assert list(pool.values()) == ["picked", "picked", *["over the quota of its topic"] * 2, "picked"]
    assert sport in picked(office, first.id)
    assert picked(office, second.id) == [a for a, reason in pool.items() if reason != "picked"]
    assert first.recipe["selection"] == {"quotas": {"category:africa": 2}}, "an edition keeps what it was made by"
    assert arrivals(office, addresses) == [2, 2, 2]


def test_caps_that_leave_too_little_skip_with_a_reason(database: Database) -> None:
    newsroom(database, readers=0, articles=3, minimum=2)
    office = Office(database)
    wish(office, quotas=("category:africa=1",))
    office.tick(AT)
    assert statuses(office)[0][1:] == ("skipped", "1 story new, within quotas and caps, at least 2 wanted")


def test_authors_and_sources_are_capped_by_what_the_catalogue_knows(database: Database) -> None:
    newsroom(database, articles=0)
    office = Office(database)
    with database.transaction() as session:
        wires = [build.source(session).id for _ in range(2)]
        for n, (author, wire) in enumerate([("Ann", 0), ("Ann", 1), ("Bo", 0), ("Bo", 0)]):
            build.article(session, authors=[author], source_id=wires[wire], age=timedelta(hours=n))
    wish(office, per_author=1)
    assert list(reasons(office, AT).values()) == ["in: picked", "out: enough by its author already"] * 2
    wish(office, per_author=0, per_source=1)
    assert list(reasons(office, AT).values()) == ["in: picked"] * 2 + ["out: enough from its source already"] * 2


def test_a_reason_names_whom_it_means(database: Database) -> None:
    addresses = newsroom(database, articles=0)
    office = Office(database)
    with database.transaction() as session:
        wire = build.source(session, slug="wire").id
        for n, author in enumerate(["Ann Author", "Bo", "ann author"]):
            told = {"title": f"Story {n}", "categories": ["Africa"], "authors": [author], "source_id": wire}
            build.article(session, age=timedelta(hours=n), **told)

    def details(at: datetime, email: str | None = None) -> list[str]:
        return [c["detail"] for c in office.preview("morning", at, email).data["candidates"]]

    wish(office, quotas=("category:africa=2",))
    assert details(AT) == ["", "", "category:africa"]
    wish(office, quotas=("",), share=0.15)
    assert details(AT) == ["", "", "category:africa"]
    wish(office, share=0, per_source=2)
    assert details(AT) == ["", "", "wire"]
    wish(office, per_source=0, per_author=1)
    assert details(AT) == ["", "", "Ann Author"]
    wish(office, per_author=0, diverse=0.1)
    assert details(AT) == ["", "“Story 0”", "“Story 0”"]
    wish(office, diverse=0, sections="category", section_max=2)
    assert details(AT) == ["", "", "category:africa"]
    wish(office, section_max=0, sections="none")
    office.tick(AT)
    had = f"morning of {AT:%Y-%m-%d}, edition {office.editions()[0].id}"
    assert details(AT + DAY) == [had] * 3
    assert details(AT + DAY, addresses[0]) == [had] * 3


def test_a_plain_digest_stands_in_sections_in_mail_and_archive(database: Database) -> None:
    addresses = newsroom(database, readers=1, articles=2)
    office = Office(database)
    article(database, categories=["Sport", "Africa"], published_at=AT - timedelta(hours=1))
    wish(office, sections="category")
    shown = office.preview("morning", AT)
    assert [p["section"] for p in shown.data["picks"]] == ["Africa", "Africa", "Sport"], "its first category is Sport"
    office.tick(AT)
    [posted] = office.outbox.posted
    assert posted.message.index(b"Africa") < posted.message.index(b"Sport")
    with database.reading() as session:
        page = ledger.edition_page(session, "morning", "2025-07-15", live=True)
    assert page is not None
    assert [s.title for s in page.sections] == ["Africa", "Sport"]
    assert arrivals(office, addresses) == [1]


def test_a_score_orders_and_shows_its_parts(database: Database) -> None:
    newsroom(database, readers=0, articles=3)
    office = Office(database)
    oil = article(database, tags=["Oil"], published_at=AT - timedelta(hours=60))
    sticky = article(database, sticky=True, published_at=AT - timedelta(hours=70))
    newest = office.preview("morning", AT).data
    assert [c["id"] for c in newest["candidates"]][-1] == oil
    assert {c["score"] for c in newest["candidates"]} == {None}
    wish(office, score="recency=1,topic:tag:oil=2")
    data = office.preview("morning", AT).data["candidates"]
    assert [c["id"] for c in data][:2] == [sticky, oil]
    assert data[1]["score"] == {"recency": 0.176777, "topic:tag:oil": 2.0, "total": 2.176777}
    totals = [c["score"]["total"] for c in data][1:]
    assert totals == sorted(totals, reverse=True)
    office.tick(AT)
    assert picked(office, office.editions()[0].id) == [c["id"] for c in data]


def test_equal_scores_stand_newest_first(database: Database) -> None:
    newsroom(database, readers=0, articles=4)
    office = Office(database)
    before = list(reasons(office, AT))
    wish(office, score="image=1")
    assert list(reasons(office, AT)) == before


def test_more_like_this_waits_for_the_next_edition(database: Database) -> None:
    newsroom(database, articles=0)
    office = Office(database)
    titles = ("Senate passes the budget bill", "Budget bill passes the Senate", "Rain in the north")
    for n, title in enumerate(titles):
        article(database, title=title, published_at=AT - timedelta(hours=n + 1))
    wish(office, diverse=0.75)
    office.tick(AT)
    assert [len(picked(office, e.id)) for e in office.editions()] == [2]
    office.tick(AT + DAY)
    assert [len(picked(office, e.id)) for e in office.editions()] == [2, 1]


# ----------------------------------------------------------------------------- a person decides


def test_approval_holds_until_a_person_lets_it_go(database: Database) -> None:
    addresses = newsroom(database, approve=True)
    office = Office(database)
    office.tick(AT)
    office.tick(AT)
    assert statuses(office) == [("2025-07-15T07:00", "held", "waiting for approval")]
    assert office.outbox.posted == []
    edition = office.editions()[0].id
    office.editor.approve(edition)
    office.send()
    assert arrivals(office, addresses) == [1, 1, 1]
    with pytest.raises(UsageError, match="not held"):
        office.editor.approve(edition)
    with pytest.raises(UsageError, match="there is no edition 999"):
        office.editor.approve(999)


def test_a_cancelled_edition_burns_nothing(database: Database) -> None:
    addresses = newsroom(database)
    office = Office(database)
    office.tick(AT, send=False)
    office.editor.cancel(office.editions()[0].id)
    office.send()
    office.tick(AT + DAY)
    assert arrivals(office, addresses) == [1, 1, 1]
    first, second = office.editions()
    assert picked(office, second.id) == picked(office, first.id) != []
    with pytest.raises(UsageError, match="nothing left to cancel"):
        office.editor.cancel(first.id)


def test_captured_editions_burn_nothing_for_live_ones(database: Database) -> None:
    addresses = newsroom(database)
    captured = Office(database, live=False)
    captured.tick(AT)
    captured.tick(AT + DAY)
    assert [s for _, s, _ in statuses(captured)] == ["finished", "skipped"], "captured ones count among themselves"
    live = Office(database)
    live.tick(AT + 2 * DAY)
    assert arrivals(live, addresses) == [1, 1, 1]
    assert len(picked(live, live.editions()[2].id)) == 4


def test_going_live_ends_what_was_still_going_to_the_capture_server(database: Database) -> None:
    newsroom(database)
    Office(database, live=False).tick(AT, send=False)
    live = Office(database)
    live.tick(AT + timedelta(minutes=1))
    assert live.outbox.posted == []
    assert [(s, r) for _, s, r in statuses(live)] == [
        ("cancelled", "mail went live before this captured edition was out")
    ]


def test_a_live_edition_never_leaves_from_a_copy_that_is_not_live(database: Database) -> None:
    newsroom(database)
    Office(database).tick(AT, send=False)
    laptop = Office(database, live=False)
    laptop.tick(AT + timedelta(minutes=1))
    assert laptop.outbox.posted == []


# ----------------------------------------------------------------------------- templates


def test_a_broken_template_holds_the_edition_and_loses_nothing(database: Database, tmp_path: Path) -> None:
    addresses = newsroom(database)
    office = Office(database)
    own = tmp_path / "email" / "cards"
    own.mkdir(parents=True)
    (own / "edition.txt").write_text("{{ nonsense( }}")
    broken = Editor(database, Renderer([tmp_path]), POST, live=True)
    broken.tick(AT)
    [(_, status, reason)] = statuses(office)
    assert status == "held"
    assert reason
    assert "edition.txt" in reason
    assert "\n" not in reason
    office.editor.approve(office.editions()[0].id)
    office.send()
    assert arrivals(office, addresses) == [1, 1, 1]


def test_a_template_that_breaks_after_the_release_pauses_the_edition_until_it_is_mended(
    database: Database, tmp_path: Path
) -> None:
    addresses = newsroom(database)
    office = Office(database)
    office.tick(AT, send=False)
    own = tmp_path / "email" / "cards"
    own.mkdir(parents=True)
    (own / "edition.txt").write_text("{{ nonsense( }}")
    broken = LedgerStore(database, Renderer([tmp_path]), POST, live=True)
    assert broken.claim() is None
    [(_, status, reason)] = statuses(office)
    assert (status, "edition.txt" in (reason or "")) == ("paused", True)
    assert office.send().answers == {}
    office.editor.approve(office.editions()[0].id)
    office.send()
    assert arrivals(office, addresses) == [1, 1, 1]
    assert office.counts(office.editions()[0].id) == {"accepted": 3}


# ----------------------------------------------------------------------------- preview


def test_preview_is_what_goes_out_and_changes_nothing(database: Database) -> None:
    addresses = newsroom(database)
    office = Office(database)
    before = count_all(database)
    shown = office.preview("morning", AT, addresses[0])
    assert count_all(database) == before
    office.tick(AT)
    sent = next(p for p in office.outbox.posted if p.rcpt.decode() == addresses[0])
    assert shown.message is not None
    assert comparable(shown.message) == comparable(sent.message)
    house = office.preview("morning", AT + DAY)
    assert house.message is None
    assert {c["reason"] for c in house.data["candidates"]} == {"already in an earlier edition"}


def test_preview_tells_every_candidate_and_why(database: Database) -> None:
    newsroom(database, readers=0, articles=4, maximum=2)
    article(database, published_at=AT - timedelta(minutes=1))
    data = Office(database).preview("morning", AT).data
    assert [(c["verdict"], c["reason"]) for c in data["candidates"]] == [
        ("out", "still in its grace period"), ("in", "picked"), ("in", "picked"),
        ("out", "over the maximum"), ("out", "over the maximum"),
    ]  # fmt: skip
    assert [p["position"] for p in data["picks"]] == [0, 1]
    assert all(g["ok"] for g in data["gates"])


def test_preview_for_a_stranger_is_one_sentence(database: Database) -> None:
    newsroom(database)
    with pytest.raises(UsageError, match="no subscription"):
        Office(database).preview("morning", AT, "stranger@example.org")
    with pytest.raises(UsageError, match="did you mean morning"):
        Office(database).preview("mornin", AT)


def comparable(message: bytes) -> list[bytes]:
    """Without the date, and without the edition's number: a preview of PostgreSQL uses one up."""
    own = (b"Date: ", b"Message-ID: ", b"Feedback-ID: ")
    return [line for line in message.split(b"\r\n") if not line.startswith(own)]


def count_all(db: Database) -> dict[str, int]:
    with db.reading() as session:
        return {t.name: session.scalar(select(func.count()).select_from(t)) or 0 for t in m.Base.metadata.sorted_tables}


# ----------------------------------------------------------------------------- setup


def add(office: Office, slug: str = "weekly", **fields: object) -> None:
    given = {"name": "Weekly", "schedule": "0 7 * * 1"} | fields
    office.setup.add(slug, DigestFields(**given), build.T)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"categories": ("afrika",)}, "africa"),
        ({"where": "category:africa and"}, "column"),
        ({"where": "category:afrika"}, "africa"),
        ({"categories": ("123",)}, "is a number"),
        ({"schedule": "0 7 * *"}, "4 fields"),
        ({"schedule": None}, "needs a schedule"),
        ({"timezone": "Mars/Olympus"}, "no time zone"),
        ({"minimum": 5, "maximum": 3}, "do not fit"),
        ({"lookback": "soon"}, "not a span of time"),
        ({"layout": "card"}, "cards"),
        ({"repeat": "always"}, "never or others"),
        ({"reply_to": "nobody"}, "nobody"),
        ({"subject": "{{ digest.name"}, "subject"),
        ({"selection": Wishes(quotas=("category:afrika=2",))}, "category:africa"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    database: Database, fields: dict[str, object], said: str
) -> None:
    newsroom(database)
    office = Office(database)
    with pytest.raises((UsageError, RenderError), match=said) as e:
        add(office, **fields)
    assert "\n" not in str(e.value)
    with database.reading() as session:
        assert session.scalars(select(m.Digest.slug)).all() == ["morning"]


@pytest.mark.parametrize("slug", ["morning", "2025", "Weekly News", "a--b", ""])
def test_a_slug_must_be_free_and_a_slug(database: Database, slug: str) -> None:
    newsroom(database)
    with pytest.raises(UsageError):
        add(Office(database), slug)


def test_change_keeps_what_is_not_named(database: Database) -> None:
    newsroom(database)
    office = Office(database)
    add(office, categories=("africa",), minimum=3)
    office.setup.change("weekly", DigestFields(maximum=20, schedule="30 8 * * *", timezone="Asia/Tokyo"))
    with database.reading() as session:
        row = ledger.digests.list_digests(session, "weekly")[0]
    assert (row.digest.minimum, row.digest.maximum, row.digest.categories) == (3, 20, ["africa"])
    assert [(s.cron, s.timezone) for s in row.schedules] == [("30 8 * * *", "Asia/Tokyo")]
    assert [r.local_key for r in office.setup.next_runs("weekly", build.T, 2)] == [
        "2025-07-15T08:30",
        "2025-07-16T08:30",
    ]


def test_overlap_is_told(database: Database) -> None:
    newsroom(database, categories=["africa"])
    office = Office(database)
    add(office, categories=("africa",))
    assert office.setup.overlapping("weekly") == ["morning"]


def test_the_layout_is_compiled_once() -> None:
    assert renderer().layout("cards") is renderer().layout("cards")


def test_a_publication_may_speak_a_language_that_mails_do_not(database: Database) -> None:
    addresses = newsroom(database)
    with database.transaction() as session:
        session.execute(update(m.Publication).values(language="pt-br"))
    office = Office(database)
    assert office.preview("morning", AT).message
    office.tick(AT)
    assert arrivals(office, addresses) == [1, 1, 1]
