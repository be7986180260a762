"""Doors for machines that report bounces and complaints: signed, fresh, and obeyed once.

    POST /hooks/ses      Amazon SES by way of SNS: signature, topic, time (delivery.sns)
    POST /hooks/report   anybody who has the secret: HMAC-SHA256 over time, number and body

Whatever is forged, stale or comes again gets one plain sentence and changes nothing. Nothing of a body is logged. What
a report leads to is `digest.bounces`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from digest import bounces, ledger
from digest.bootstrap import App
from digest.bounces import Trust
from digest.delivery import sns
from digest.delivery.reports import Letter, Report, read_notices, read_report
from digest.delivery.sns import Notification, Refused
from digest.errors import SourceError

log = logging.getLogger(__name__)

#: Larger than the largest notice, and than what is read of a message.
MAX_BODY = 2 * 1024 * 1024
#: A request of /hooks/report is fresh for so long, in either direction.
FRESH = timedelta(minutes=5)
_CERTIFICATES = 8
_NOT_KEPT = {"cache-control": "no-store"}

Get = Callable[[str], bytes]


def routes(app: App, get: Get | None = None) -> list[Route]:
    """*get*: what fetches a certificate and confirms a subscription; the guarded client unless told otherwise."""
    hooks = Hooks(app, get or (lambda url: app.fetcher.get(url).content))
    return [
        Route("/hooks/ses", _posted(hooks.ses), methods=["POST"]),
        Route("/hooks/report", _posted(hooks.report), methods=["POST"]),
    ]


def _posted(hook: Callable[[Request, bytes], Response]) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(hook, request, body)

    return endpoint


class Hooks:
    def __init__(self, app: App, get: Get) -> None:
        self.app, self._get = app, get
        self._certificates: OrderedDict[str, bytes] = OrderedDict()

    # ------------------------------------------------------------------------- Amazon SES

    def ses(self, request: Request, body: bytes) -> Response:
        """Bounces and complaints of SES; a topic that asks whether to subscribe is answered yes."""
        topics, now = self.app.settings.hooks.sns_topics, self.app.db.now()
        if not topics:
            return _say(404, "this hook is closed: hooks.sns_topics names no topic")
        try:
            notification = sns.read_notification(body, topics, now)
            sns.verify(notification, self._certificate(notification.certificate_url), now)
            if notification.kind == "SubscriptionConfirmation":
                self._get(sns.subscribe_address(notification))
                log.info("hook.subscribed topic=%s", notification.topic)
        except Refused as e:
            log.warning("hook.refused hook=ses: %s", e)
            return _say(403, f"refused: {e}")
        except SourceError as e:
            log.warning("hook.failed hook=ses code=%s", e.code)
            return _say(503, "Amazon could not be asked; try again")
        if notification.kind != "Notification":
            return _say(200, "ok")
        obeyed = self._obey("ses", notification.number, sns.WINDOW, now, _reports_of(notification), Trust.SIGNED)
        return _say(200, "ok" if obeyed else "known already")  # SNS sends again until it hears 200

    def _certificate(self, url: str) -> bytes:
        found = self._certificates.get(url)
        if found is None:
            found = self._certificates[url] = self._get(url)
            if len(self._certificates) > _CERTIFICATES:
                self._certificates.popitem(last=False)
        return found

    # ------------------------------------------------------------------------- our own form

    def report(self, request: Request, body: bytes) -> Response:
        """JSON (`delivery.reports.notices`), or a whole message as message/rfc822."""
        secret, now = self.app.settings.hook_secret(), self.app.db.now()
        if not secret:
            return _say(404, "this hook is closed: hooks.secret_file is not set")
        stamp, number = request.headers.get("x-digest-time", ""), request.headers.get("x-digest-number", "")
        if not _signed(secret, stamp, number, body, request.headers.get("x-digest-signature", "")):
            return self._refused("the signature is wrong")
        if not stamp.isdecimal() or abs(now.timestamp() - int(stamp)) > FRESH.total_seconds():
            return self._refused("the time is not within five minutes of ours")
        if not (8 <= len(number) <= 100 and number.isprintable()):
            return self._refused("the number needs 8 to 100 characters")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "message/rfc822":
            reports, trust = [read_report(Letter.of(body))], Trust.NOBODY
        else:
            reports, trust = read_notices(body), Trust.SIGNED
        if not reports:
            return _say(400, "no report in it is understood; docs/bounces.md shows the form")
        if not self._obey("hook", number, 2 * FRESH, now, reports, trust):
            return _say(409, "a request of that number was obeyed before")
        return _say(200, f"{len(reports)} taken")

    def _refused(self, why: str) -> Response:
        log.warning("hook.refused hook=report: %s", why)
        return _say(403, f"refused: {why}")

    # ------------------------------------------------------------------------- both

    def _obey(
        self, hook: str, number: str, window: timedelta, now: datetime, reports: Sequence[Report], trust: Trust
    ) -> bool:
        """One transaction: the number and what it brought stand or fall together. False: obeyed before."""
        post = self.app.post
        with self.app.db.transaction() as session:
            if not ledger.events.first_time(session, f"{hook}:{number}", now, window):
                return False
            for i, report in enumerate(reports):
                bounces.take(
                    session, report, fingerprint=hashlib.sha256(f"{hook}:{number}:{i}".encode()).hexdigest(),
                    source=hook, keys=post.keys, domain=post.mail_domain, now=now, trust=trust,
                )  # fmt: skip
        return True


def _reports_of(notification: Notification) -> list[Report]:
    return read_notices(notification.message)


def _signed(secret: bytes, stamp: str, number: str, body: bytes, signature: str) -> bool:
    wanted = hmac.digest(secret, f"{stamp}.{number}.".encode() + body, "sha256").hex()
    return hmac.compare_digest(wanted.encode(), signature.removeprefix("sha256=").lower().encode())


def _say(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence + "\n", status, headers=_NOT_KEPT)
