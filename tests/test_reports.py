"""What messages report: by the standards, by habit, as JSON; hostile ones too. Nothing here has a database."""

from __future__ import annotations

import io
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digest.delivery.classify import Weight, gives_up, status_of, weigh
from digest.delivery.reports import LIMIT, Letter, Report, ReportKind, read_letter, read_notices, read_report
from tests import reports
from tests.build import T

VERP = "b+7.9.00112233445566778899@news.example"


def read(message: bytes) -> Report:
    return read_report(Letter.of(message))


# ----------------------------------------------------------------------------- by the standards


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_a_delivery_report_whatever_ends_its_lines(ends: bytes) -> None:
    report = read(reports.dsn(to=VERP, rcpt="amara@example.org").replace(b"\n", ends))
    assert (report.kind, report.email, report.status) == (ReportKind.BOUNCE, "amara@example.org", "5.1.1")
    assert report.text == "550 5.1.1 no such user here"
    assert report.to == (VERP,)


@pytest.mark.parametrize(
    ("action", "status", "kind"),
    [
        ("failed", "5.2.2", ReportKind.BOUNCE),
        ("failed", "4.4.7", ReportKind.BOUNCE),  # given up after days
        ("delayed", "4.4.1", ReportKind.DELAYED),
        ("relayed", "2.0.0", ReportKind.DELIVERED),
        ("delivered", "2.0.0", ReportKind.DELIVERED),
    ],
)
def test_what_the_action_says(action: str, status: str, kind: ReportKind) -> None:
    report = read(reports.dsn(to=VERP, rcpt="a@example.org", action=action, status=status, said="said"))
    assert report.kind is kind


def test_a_complaint_with_its_reader_and_the_links_of_its_mail() -> None:
    returned = reports.original(verp=VERP, to="amara@example.org", link="https://news.example/unsubscribe/1.abc")
    report = read(reports.arf(rcpt="amara@example.org", returned=returned))
    assert (report.kind, report.email) == (ReportKind.COMPLAINT, "amara@example.org")
    assert VERP in report.traces
    assert report.links == ("https://news.example/unsubscribe/1.abc",)
    assert read(reports.arf(returned=returned)).email == "amara@example.org", "from the mail it returns"


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure"])
def test_feedback_that_is_no_complaint(kind: str) -> None:
    assert read(reports.arf(kind=kind, returned="Subject: x\n")).kind is ReportKind.UNKNOWN


# ----------------------------------------------------------------------------- by habit


def test_a_bounce_of_no_standard() -> None:
    report = read(reports.qmail(to=VERP, rcpt="amara@example.org"))
    assert (report.kind, report.email, report.status) == (ReportKind.BOUNCE, "amara@example.org", "5.1.1")


def test_out_of_office_is_no_bounce_whatever_it_mentions() -> None:
    assert read(reports.absent(to=VERP, sender="amara@example.org")).kind is ReportKind.AUTO_REPLY


@pytest.mark.parametrize("subject", ["unsubscribe", "Re: Unsubscribe", "Abmelden"])
def test_a_wish_to_leave(subject: str) -> None:
    message = reports.leaving(to="u+1.0@news.example", sender="amara@example.org", subject=subject)
    assert read(message).kind is ReportKind.UNSUBSCRIBE


def test_a_letter_from_a_person_is_none_of_these() -> None:
    report = read(b"From: Amara <amara@example.org>\nTo: news@news.example\nSubject: Thank you!\n\nA fine paper.\n")
    assert report.kind is ReportKind.UNKNOWN


@pytest.mark.parametrize(
    ("status", "said", "means"),
    [
        ("5.1.1", "", "5.1.1"),
        ("5.0.0", "550 5.1.1 no such user", "5.1.1"),
        (None, "550 5.7.1 <a@b.example>: rejected", "5.7.1"),
        (None, "552 5.2.2 mailbox full", "5.2.2"),
        (None, "550 Requested action not taken: user unknown", "5.1.1"),
        (None, "450 user unknown, try again later", "4.4.3"),
        (None, "554 message rejected by Spamhaus: user unknown", "5.7.1"),
        (None, "552 sorry, that mailbox is over quota", "5.2.2"),
        ("5.1.1", "550 IP listed at Spamhaus", "5.7.1"),
        ("5.1.1", "552 mailbox full", "5.2.2"),
        ("5.1.1", "550 5.7.1 blocked", "5.7.1"),
        ("5.1.1", "550 <no-spamhaus@policy.example>: user unknown", "5.1.1"),
        (None, "550 refused, and no word why", "5.0.0"),
        (None, "the 550 articles of 2019.5.1.1", "5.0.0"),
        (None, "something went wrong", None),
        ("not a status", "", None),
    ],
)
def test_the_status_behind_the_words(status: str | None, said: str, means: str | None) -> None:
    assert status_of(status, said) == means


@pytest.mark.parametrize(
    ("status", "weight"),
    [
        ("5.1.1", Weight.GONE), ("5.1.2", Weight.GONE), ("5.1.10", Weight.GONE), ("5.4.4", Weight.GONE),
        ("4.1.1", Weight.FULL), ("5.2.2", Weight.FULL), ("4.2.2", Weight.FULL), ("4.4.7", Weight.FULL),
        ("5.0.0", Weight.FULL), (None, Weight.FULL), ("5.7.1", Weight.OURS), ("5.7.26", Weight.OURS),
        ("4.7.650", Weight.OURS), ("5.6.0", Weight.OURS), ("5.3.4", Weight.OURS), ("5.1.8", Weight.OURS),
    ],
)  # fmt: skip
def test_only_an_address_that_is_gone_weighs_at_once(status: str | None, weight: Weight) -> None:
    assert weigh(status) is weight


def test_five_days_within_thirty() -> None:
    from datetime import timedelta

    days = [T.date() - timedelta(days=n) for n in (0, 1, 2, 3)]
    assert not gives_up(days, T.date())
    assert not gives_up([*days, T.date() - timedelta(days=30)], T.date())
    assert gives_up([*days, T.date() - timedelta(days=29)], T.date())


# ----------------------------------------------------------------------------- as JSON


def test_notices_of_ses() -> None:
    mail = {"source": VERP, "destination": ["amara@example.org"]}
    gone = {"bounceType": "Permanent", "bounceSubType": "General",
            "bouncedRecipients": [{"emailAddress": "amara@example.org"}]}  # fmt: skip
    full = {"bounceType": "Transient", "bounceSubType": "MailboxFull",
            "bouncedRecipients": [{"emailAddress": "a@example.org", "status": "4.2.2",
                                   "diagnosticCode": "smtp; 452 4.2.2 full"}]}  # fmt: skip
    away = {
        "bounceType": "Transient",
        "bounceSubType": "General",
        "bouncedRecipients": [{"emailAddress": "a@b.example"}],
    }
    spam = {"complainedRecipients": [{"emailAddress": "a@example.org"}], "complaintFeedbackType": "abuse"}

    def one(**body: object) -> Report:
        (found,) = read_notices(json.dumps({**body, "mail": mail}))
        return found

    first = one(notificationType="Bounce", bounce=gone)
    assert (first.kind, first.email, first.status, first.traces) == (
        ReportKind.BOUNCE, "amara@example.org", "5.1.1", (VERP,),
    )  # fmt: skip
    assert one(eventType="Bounce", bounce=full).status == "4.2.2"
    assert one(notificationType="Bounce", bounce=away).kind is ReportKind.AUTO_REPLY
    assert one(notificationType="Complaint", complaint=spam).kind is ReportKind.COMPLAINT
    assert one(notificationType="Delivery", delivery={}).kind is ReportKind.DELIVERED


def test_our_own_form_and_sendgrids() -> None:
    rows = [
        {"kind": "bounce", "email": "a@example.org", "status": "5.1.1"},
        {"event": "spamreport", "email": "b@example.org"},
        {"event": "dropped", "email": "c@example.org", "reason": "550 5.1.1 unknown"},
        {"event": "processed?", "email": "d@example.org"},
        {"kind": "bounce"},
        "nonsense",
    ]
    found = read_notices(json.dumps(rows))
    assert [(r.kind.value, r.email, r.status) for r in found] == [
        ("bounce", "a@example.org", "5.1.1"), ("complaint", "b@example.org", None),
        ("bounce", "c@example.org", "5.1.1"),
    ]  # fmt: skip


@pytest.mark.parametrize("body", ["", "[]", "7", "{", "[" * 100_000, '{"mail": 3, "bounce": []}', "null"])
def test_json_that_reports_nothing(body: str) -> None:
    assert read_notices(body) == []


# ----------------------------------------------------------------------------- hostile


def test_a_message_of_50_mb_is_read_at_its_beginning_and_counted_to_its_end() -> None:
    head = reports.dsn(to=VERP, rcpt="amara@example.org", returned="Subject: x\n\n" + "x" * 100)
    filler = b"x" * 999 + b"\n"

    class Endless(io.RawIOBase):
        """Fifty megabytes that nobody has to keep."""

        left, first = 50_000, head

        def read(self, size: int = -1) -> bytes:
            if self.first:
                piece, self.first = self.first, b""
                return piece
            self.left -= 50
            return filler * 50 if self.left >= 0 else b""

    letter = read_letter(Endless())
    assert letter.size == len(head) + 50_000_000
    assert len(letter.octets) == LIMIT
    report = read_report(letter)
    assert (report.kind, report.status) == (ReportKind.BOUNCE, "5.1.1")
    assert report.problem.startswith("it is 50,0")


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\0" * LIMIT, b"From: MAILER-DAEMON@x\n\n" + b"550 " * (LIMIT // 4), b"a" * LIMIT, b"a@" * (LIMIT // 2),
        b"From: postmaster@x\nSubject: failed\n\n" + b"<a@b.example> " * (LIMIT // 14),
        b"From: postmaster@x\n\n" + b"user " * (LIMIT // 5), b"Subject: " + b"(" * 100_000,
        b"Content-Type: multipart/mixed; boundary=b\n" + b"\n--b\nContent-Type: multipart/mixed; boundary=b\n" * 5_000,
        b"".join(b"Content-Type: message/rfc822\n\n" for _ in range(30_000)),
        b"From: mailer-daemon@x\nContent-Type: text/plain; charset=no-such\n\n\xff\xfe undeliverable",
        b"Subject: =?no-such?q?=FF?= undeliverable\nFrom: mailer-daemon@x\n\n",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n"
        b"Content-Type: message/delivery-status\n\n" + b"Final-Recipient: " * 60_000,
    ],
    ids=range(13),
)  # fmt: skip
def test_hostile_octets_cost_a_moment_and_make_one_report(message: bytes) -> None:
    began = time.process_time()
    report = read(message)
    assert isinstance(report, Report)
    assert len(report.text) <= 500
    assert report.text.isprintable()
    assert time.process_time() - began < 3


PIECES = (
    "Content-Type: message/delivery-status\n\n", "Content-Type: multipart/report; boundary=b\n\n", "--b\n", "--b--\n",
    "Final-Recipient: rfc822; a@example.org\n", "Action: failed\n", "Status: 5.1.1\n", "From: MAILER-DAEMON\n",
    "Subject: failure notice\n", "\n", "550 5.7.1 blocked\n", "Feedback-Type: abuse\n", "<a@example.org>:\n",
    "Content-Type: message/feedback-report\n\n", "Auto-Submitted: auto-replied\n", "\r", "\0", "\ud7ff", "{", '"mail"',
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=30))
def test_any_mixture_makes_one_report(pieces: list[str]) -> None:
    report = read("".join(pieces).encode("utf-8", "replace"))
    assert report.kind in ReportKind
    assert report.status is None or report.status[0] in "245"
