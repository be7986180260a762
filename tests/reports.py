"""Bounces, complaints and other replies as servers write them, made for one mail of ours."""

from __future__ import annotations


def original(*, verp: str, to: str, link: str = "https://news.example/unsubscribe/1.x", leaving: str = "") -> str:
    """The headers of a mail that comes back."""
    mailto = f", <mailto:{leaving}?subject=unsubscribe>" if leaving else ""
    return (
        f"Return-Path: <{verp}>\nFrom: The Harbour Paper <news@news.example>\nTo: {to}\nSubject: Five stories\n"
        f"Message-ID: <abc@news.example>\nList-Unsubscribe: <{link}>{mailto}\n"
        "Content-Type: text/plain\n\nFive stories today.\n"
    )


def dsn(
    *, to: str, rcpt: str, status: str = "5.1.1", said: str = "550 5.1.1 no such user here", action: str = "failed",
    returned: str = "",
) -> bytes:  # fmt: skip
    """RFC 3464, as Postfix writes it. ``to``: the envelope sender it is sent back to."""
    return f"""\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mx.example.org (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {to}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="=b"

--=b
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.
<{rcpt}>: host mx.example.org said: {said}
--=b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.org
Arrival-Date: Mon, 14 Jul 2025 07:00:00 +0000

Final-Recipient: rfc822; {rcpt}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}

--=b
Content-Type: message/rfc822

{returned or "Subject: Five stories"}
--=b--
""".encode()


def arf(*, kind: str = "abuse", rcpt: str = "", returned: str) -> bytes:
    """RFC 5965, as a mailbox provider sends it to the address that its feedback loop was registered with."""
    named = f"Original-Rcpt-To: {rcpt}\n" if rcpt else ""
    return f"""\
From: complaints@provider.example
To: abuse@news.example
Subject: FW: Five stories
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="=b"

--=b
Content-Type: text/plain

This is an email abuse report for a message received from 192.0.2.1.
--=b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: Provider/1.0
Version: 1
{named}
--=b
Content-Type: message/rfc822

{returned}
--=b--
""".encode()


def qmail(*, to: str, rcpt: str) -> bytes:
    """A bounce of no standard."""
    return f"""\
Return-Path: <>
Delivered-To: {to}
From: MAILER-DAEMON@mx.example.org
To: {to}
Subject: failure notice

Hi. This is the qmail-send program at mx.example.org.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<{rcpt}>:
Sorry, no mailbox here by that name. (#5.1.1)

--- Below this line is a copy of the message.
""".encode()


def absent(*, to: str, sender: str) -> bytes:
    """Somebody is out of office."""
    return f"""\
From: {sender}
To: {to}
Subject: Automatic reply: Five stories
Auto-Submitted: auto-replied
Precedence: bulk

I am away until Monday. Mail to 550 5.1.1 will be read then.
""".encode()


def leaving(*, to: str, sender: str, subject: str = "unsubscribe") -> bytes:
    """What a mail program sends when its reader presses "unsubscribe"."""
    return f"From: {sender}\nTo: {to}\nSubject: {subject}\nMessage-ID: <1@example.org>\n\n".encode()
