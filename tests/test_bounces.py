"""What follows from a bounce, a complaint, a wish to leave; and that nothing follows from a forged one."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text

from digest import audience, bounces, ledger
from digest import models as m
from digest.audience import Tokens
from digest.bounces import Taken, Trust
from digest.bounces.heeding import days_of_failure
from digest.db import Database
from digest.delivery.message import leaving_address, verp
from digest.delivery.reports import Letter, Report, ReportKind, read_report
from digest.ledger.events import Failure, Sent
from digest.types import Outcome, Result
from tests import build, reports
from tests.build import T
from tests.office import POST, Office, newsroom

KEYS, DOMAIN = POST.keys, POST.mail_domain
DAY = timedelta(days=1)


def envelope(edition: int, subscriber: int) -> str:
    return verp(edition, subscriber, KEYS.message_id, DOMAIN)


def take(database: Database, message: bytes | Report, now: datetime = T, trust: Trust = Trust.NOBODY) -> Taken:
    report = message if isinstance(message, Report) else read_report(Letter.of(message))
    name = hashlib.sha256(message if isinstance(message, bytes) else repr((message, now)).encode()).hexdigest()
    with database.transaction() as session:
        return bounces.take(
            session, report, fingerprint=name, source="pipe", keys=KEYS, domain=DOMAIN, now=now, trust=trust
        )


def reader(database: Database, address: str = "amara@example.org", digests: int = 2) -> int:
    """A reader of some digests; returns their id."""
    with database.transaction() as session:
        who = build.subscriber(session, address)
        for n in range(digests):
            build.subscription(session, build.digest(session, f"digest-{n}"), who)
        return who.id


def standing(database: Database, subscriber: int) -> tuple[set[str], str | None]:
    """(statuses of the subscriptions, reason of the suppression)."""
    with database.reading() as session:
        who = session.get_one(m.Subscriber, subscriber)
        statuses = set(session.scalars(select(m.Subscription.status).filter_by(subscriber_id=subscriber)))
        return statuses, audience.suppression(session, who.address_key)


# ----------------------------------------------------------------------------- what follows


def test_an_address_that_is_gone_is_never_written_to_again(database: Database) -> None:
    for n, make in enumerate([reports.dsn, reports.qmail]):
        address = f"amara{n}@example.org"
        with database.transaction() as session:
            who = build.subscriber(session, address).id
        taken = take(database, make(to=envelope(7, who), rcpt=address))
        assert taken == Taken("bounce", address, "5.1.1", "suppressed", None, 7)
        assert standing(database, who) == (set(), "bounce")


def test_what_is_about_us_suppresses_nobody_however_often(database: Database) -> None:
    who = reader(database)
    for n, status in enumerate(["5.7.1", "5.7.26", "4.7.650", "5.6.0", "5.3.4", "5.7.515", "5.7.25"], 1):
        message = reports.dsn(to=envelope(n, who), rcpt="amara@example.org", status=status, said="refused")
        taken = take(database, message, T + n * DAY)
        assert (taken.action, taken.reason) == ("none", f"{status} is about us or this mail, not about the address")
    assert standing(database, who) == ({"active"}, None)


def test_five_days_with_a_full_mailbox_suspend_and_never_suppress(database: Database) -> None:
    who = reader(database)
    actions = []
    for n in range(6):
        for hour in (0, 3):  # two on a day are one day
            message = reports.dsn(
                to=envelope(10 * n + hour + 1, who), rcpt="amara@example.org", status="5.2.2", said="mailbox full"
            )
            actions.append(take(database, message, T + n * DAY + timedelta(hours=hour)).action)
    assert actions == ["counted"] * 8 + ["suspended"] * 4
    assert standing(database, who) == ({"suspended"}, None)
    with database.reading() as session:
        kinds = {(e["kind"], e["source"]) for e in audience.show(session, "amara@example.org")["consent"]}
    assert ("suspended", "bounces") in kinds


def test_a_suspended_reader_comes_back_by_subscribing_and_confirming(database: Database) -> None:
    who = reader(database, digests=1)
    with database.transaction() as session:
        audience.suspend(session, who, now=T, source="bounces")
        asked = audience.subscribe(session, "digest-0", "amara@example.org", now=T + DAY, source="form")
        assert asked.mailed
        audience.confirm(session, asked.subscription_ids[0], now=T + DAY)
    assert standing(database, who) == ({"active"}, None)


def test_a_complaint_ends_all_and_shuts_out(database: Database) -> None:
    who = reader(database)
    returned = reports.original(verp=envelope(7, who), to="amara@example.org")
    taken = take(database, reports.arf(returned=returned))
    assert (taken.kind, taken.action, taken.edition) == ("complaint", "unsubscribed", 7)
    assert standing(database, who) == ({"unsubscribed"}, "complaint")


def test_a_complaint_proven_by_a_link_alone_ends_all_and_shuts_nobody_out(database: Database) -> None:
    """Whoever gets a mail that was passed on has its links; its envelope they never see."""
    who = reader(database)
    with database.reading() as session:
        mine = session.scalars(select(m.Subscription.id).filter_by(subscriber_id=who)).first()
    assert mine is not None
    link = f"https://news.example/unsubscribe/{Tokens(KEYS.token).make('unsubscribe', (mine,))}"
    taken = take(database, reports.arf(returned=reports.original(verp="b+1@x.example", to="a@x.example", link=link)))
    assert taken.action == "unsubscribed"
    assert standing(database, who) == ({"unsubscribed"}, None)


def test_mail_to_the_leaving_address_ends_that_subscription(database: Database) -> None:
    subjects = ("unsubscribe", "", "Please!")
    who = reader(database, digests=4)
    with database.reading() as session:
        mine = session.scalars(select(m.Subscription.id).filter_by(subscriber_id=who).order_by(m.Subscription.id)).all()
    for subscription, subject in zip(mine, subjects, strict=False):
        to = leaving_address(subscription, KEYS.message_id, DOMAIN)
        taken = take(database, reports.leaving(to=to.upper(), sender="somebody@else.example", subject=subject))
        assert (taken.kind, taken.action) == ("unsubscribe", "unsubscribed")
    with database.reading() as session:
        still = session.scalars(select(m.Subscription.id).filter_by(subscriber_id=who, status="active")).all()
    assert still == mine[3:]


def test_a_bounce_that_returns_the_leaving_address_ends_no_subscription(database: Database) -> None:
    who = reader(database, digests=1)
    with database.reading() as session:
        mine = session.scalars(select(m.Subscription.id).filter_by(subscriber_id=who)).one()
    leaving = leaving_address(mine, KEYS.message_id, DOMAIN)
    returned = reports.original(verp=envelope(7, who), to="amara@example.org", leaving=leaving)
    full = reports.dsn(to=envelope(7, who), rcpt="amara@example.org", status="4.2.2", said="full", returned=returned)
    assert take(database, full).action == "counted"
    robot = reports.absent(to=leaving, sender="amara@example.org")
    assert take(database, robot).action == "none"
    assert standing(database, who) == ({"active"}, None)


def test_nothing_follows_from_absence_delay_or_arrival(database: Database) -> None:
    who = reader(database)
    to = envelope(7, who)
    messages = {
        "auto_reply": reports.absent(to=to, sender="amara@example.org"),
        "delayed": reports.dsn(to=to, rcpt="amara@example.org", action="delayed", status="4.4.1", said="later"),
        "delivered": reports.dsn(to=to, rcpt="amara@example.org", action="delivered", status="2.0.0", said="ok"),
    }
    for kind, message in messages.items():
        taken = take(database, message)
        assert (taken.kind, taken.action) == (kind, "none")
    assert standing(database, who) == ({"active"}, None)


# ----------------------------------------------------------------------------- proof


def test_a_forged_bounce_suppresses_nobody(database: Database) -> None:
    who = reader(database)
    genuine = envelope(7, who)
    number, _, mac = genuine.partition("@")[0].rpartition(".")
    forged = [
        f"{number}.{'0' * 20}@{DOMAIN}",
        f"b+8.{who}.{mac}@{DOMAIN}",  # of another edition
        f"b+7.{who + 1}.{mac}@{DOMAIN}",  # of another reader
        genuine.replace(DOMAIN, "evil.example"),
        f"news@{DOMAIN}",
    ]
    for to in forged:
        for message in (
            reports.dsn(to=to, rcpt="amara@example.org"),
            reports.qmail(to=to, rcpt="amara@example.org"),
            reports.arf(rcpt="amara@example.org", returned=reports.original(verp=to, to="amara@example.org")),
            reports.leaving(to=to.replace("b+", "u+"), sender="amara@example.org"),
        ):
            taken = take(database, message)
            assert taken.action == "none", message
    assert standing(database, who) == ({"active"}, None)
    with database.reading() as session:
        rows = session.scalars(select(m.DeliveryEvent)).all()
    assert len(rows) == 4 * len(forged), "one row a message"
    assert {r.subscriber_id for r in rows} == {None}


def test_a_signed_report_is_about_the_address_that_it_names(database: Database) -> None:
    who = reader(database)
    gone = Report(ReportKind.BOUNCE, "AMARA@example.org", "5.1.1", "no such user")
    assert take(database, gone, trust=Trust.NOBODY).action == "none"
    assert take(database, gone, T + DAY, trust=Trust.SIGNED).action == "suppressed"
    assert standing(database, who)[1] == "bounce"
    stranger = Report(ReportKind.COMPLAINT, "stranger@example.org", None, "spam")
    assert take(database, stranger, trust=Trust.SIGNED).action == "suppressed"
    full = Report(ReportKind.BOUNCE, "stranger2@example.org", "5.2.2", "full")
    assert take(database, full, trust=Trust.SIGNED).action == "none"
    left = Report(ReportKind.UNSUBSCRIBE, "amara@example.org")
    assert take(database, left, trust=Trust.SIGNED).action == "unsubscribed"


def test_the_same_report_counts_once_and_says_so(database: Database) -> None:
    who = reader(database)
    message = reports.dsn(to=envelope(7, who), rcpt="amara@example.org")
    assert take(database, message).action == "suppressed"
    with database.transaction() as session:
        audience.lift(session, audience.parse_address("amara@example.org"))
    again = take(database, message, T + DAY)
    assert (again.action, again.reason) == ("none", "it was read before, on 2025-07-14, and led to: suppressed")
    assert standing(database, who)[1] is None


def test_a_bounce_of_an_erased_reader_is_kept_without_them(database: Database) -> None:
    taken = take(database, reports.dsn(to=envelope(7, 99), rcpt="gone@example.org"))
    assert taken.action == "none"


# ----------------------------------------------------------------------------- counting days


def at(day: float) -> datetime:
    return T + timedelta(days=day)


@pytest.mark.parametrize(
    ("bounced", "sent", "days"),
    [
        ([], [], 0),
        ([(1, 0), (2, 1), (3, 2)], [(1, 0), (2, 1), (3, 2)], 3),
        ([(1, 0), (2, 1), (4, 3)], [(1, 0), (2, 1), (3, 2), (4, 3)], 1),  # the third one arrived
        ([(1, 5), (2, 6)], [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)], 2),  # the server holds on for five days
        ([(None, 0), (None, 1)], [], 2),
    ],
)
def test_days_since_mail_last_arrived(
    bounced: list[tuple[int | None, int]], sent: list[tuple[int, int]], days: int
) -> None:
    failures = [Failure(edition, "4.2.2", at(day)) for edition, day in bounced]
    accepted = [Sent(edition, True, "2.0.0", at(day)) for edition, day in sent]
    assert len(days_of_failure(failures, accepted)) == days


def test_refusals_count_as_bounces_do() -> None:
    refused = [Sent(n, False, "5.2.2", at(n)) for n in range(3)] + [Sent(9, False, "5.7.1", at(3))]
    assert len(days_of_failure([], refused)) == 3


# ----------------------------------------------------------------------------- while sending


def test_a_reader_whom_the_relay_calls_unknown_gets_no_further_mail(database: Database) -> None:
    addresses = newsroom(database, readers=3, articles=4)
    office = Office(database)
    office.outbox.answers = {  # type: ignore[attr-defined]
        addresses[0]: Outcome(Result.REJECTED, 550, "5.1.1", "no such mailbox"),
        addresses[1]: Outcome(Result.REJECTED, 550, "5.7.1", "blocked"),
    }
    office.tick(T.replace(hour=7) + DAY)
    with database.reading() as session:
        assert audience.suppression(session, addresses[0]) == "bounce"
        assert audience.suppression(session, addresses[1]) is None
        assert audience.suppression(session, addresses[2]) is None


def test_the_event_stands_beside_the_outcome(database: Database) -> None:
    addresses = newsroom(database, readers=2, articles=4)
    office = Office(database)
    edition, *_ = office.tick(T.replace(hour=7) + DAY)
    with database.reading() as session:
        who = session.scalars(select(m.Subscriber.id).filter_by(address=addresses[0])).one()
    take(database, reports.dsn(to=envelope(edition, who), rcpt=addresses[0]), T + 2 * DAY)
    assert office.counts(edition) == {"accepted": 2}
    with database.reading() as session:
        events = ledger.events.events_of(session, who, edition)
        assert [(e.kind, e.status, e.action) for e in events] == [("bounce", "5.1.1", "suppressed")]
        assert session.execute(text("SELECT count(*) FROM delivery_events")).scalar_one() == 1
