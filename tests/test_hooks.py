"""The doors for machines, over HTTP: what is signed and fresh is obeyed once; all else changes nothing."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select
from starlette.testclient import TestClient

from digest import audience
from digest import models as m
from digest.bootstrap import App
from digest.config import Settings
from digest.db import Database
from digest.delivery.message import verp
from digest.errors import SourceError
from digest.web.app import create_app
from tests import build, reports

TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
CONFIRM = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=abc"
AWS, LOOKS_ALIKE = "amazonaws.com", "amazonaws.com.evil.example"
PEM = "SimpleNotificationService-0123456789abcdef.pem"
SECRET = b"a secret of the hook"


@dataclass
class Amazon:
    """A key that signs as SNS does, its certificate, and what was fetched."""

    key: rsa.RSAPrivateKey
    valid_for: timedelta = timedelta(days=1)
    asked: list[str] = field(default_factory=list)
    down: bool = False

    def get(self, url: str) -> bytes:
        self.asked.append(url)
        if self.down:
            raise SourceError("timeout", "it did not answer")
        return self.certificate() if url.endswith(".pem") else b"<ok/>"

    def certificate(self) -> bytes:
        who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(self.key.public_key())
        builder = (
            builder.serial_number(1).not_valid_before(now - timedelta(days=9)).not_valid_after(now + self.valid_for)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def message(self, notice: object = None, *, algorithm: Any = None, **changes: str) -> dict[str, str]:
        """A signed message; *changes* before it is signed."""
        fields = {
            "Type": "Notification", "MessageId": "11111111-2222", "TopicArn": TOPIC,
            "Message": json.dumps(notice if notice is not None else bounced("amara@example.org")),
            "Timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.123Z}", "SignatureVersion": "2",
            "SigningCertURL": CERTIFICATE, **changes,
        }  # fmt: skip
        names = ["Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{n}\n{fields[n]}\n" for n in names if n in fields)
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), algorithm or hashes.SHA256())
        return {**fields, "Signature": base64.b64encode(signature).decode()}


def bounced(email: str, sender: str = "news@news.example") -> dict[str, Any]:
    return {
        "notificationType": "Bounce", "mail": {"source": sender, "destination": [email]},
        "bounce": {"bounceType": "Permanent", "bounceSubType": "General",
                   "bouncedRecipients": [{"emailAddress": email, "status": "5.1.1"}]},
    }  # fmt: skip


def complained(email: str) -> dict[str, Any]:
    return {
        "notificationType": "Complaint",
        "mail": {},
        "complaint": {"complainedRecipients": [{"emailAddress": email}]},
    }


@pytest.fixture(scope="session")
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def amazon(signing_key: rsa.RSAPrivateKey) -> Amazon:
    return Amazon(signing_key)


def opened(database: Database, settings: Settings, tmp_path: Path, amazon: Amazon) -> TestClient:
    secret = tmp_path / "hook"
    secret.write_bytes(SECRET + b"\n")
    hooks = settings.hooks.model_copy(update={"secret_file": secret, "sns_topics": (TOPIC,)})
    app = App(settings.model_copy(update={"hooks": hooks, "mail_domain": "news.example"}), database)
    assert app.keys
    with database.transaction() as session:
        build.publication(session)
        for n, name in enumerate(("amara", "bram")):
            build.subscription(
                session, build.digest(session, f"digest-{n}"), build.subscriber(session, f"{name}@example.org")
            )
    return TestClient(create_app(app, amazon.get), "http://127.0.0.1:8000")


@pytest.fixture
def client(database: Database, settings: Settings, tmp_path: Path, amazon: Amazon) -> TestClient:
    return opened(database, settings, tmp_path, amazon)


@pytest.fixture
def one(sqlite: Database, settings: Settings, tmp_path: Path, amazon: Amazon) -> TestClient:
    """On one kind of database, for what never reaches it."""
    return opened(sqlite, settings, tmp_path, amazon)


def state(database: Database) -> tuple[int, int, int]:
    with database.reading() as session:
        return tuple(session.scalar(select(func.count()).select_from(t)) or 0
                     for t in (m.DeliveryEvent, m.Suppression, m.HookNonce))  # type: ignore[return-value]  # fmt: skip


def suppressed(database: Database, address: str) -> str | None:
    with database.reading() as session:
        return audience.suppression(session, address)


# ----------------------------------------------------------------------------- SES


def test_ses_is_believed_and_obeyed_once(database: Database, client: TestClient, amazon: Amazon) -> None:
    message = amazon.message(Subject="Amazon SES Email Event Notification")
    assert client.post("/hooks/ses", json=message).status_code == 200
    assert suppressed(database, "amara@example.org") == "bounce"
    before = state(database)
    assert client.post("/hooks/ses", json=message).text == "known already\n", "SNS sends again until it hears 200"
    assert state(database) == before
    assert client.post("/hooks/ses", json=amazon.message(complained("bram@example.org"), MessageId="2")).text == "ok\n"
    assert suppressed(database, "bram@example.org") == "complaint"
    assert amazon.asked == [CERTIFICATE], "fetched once"


def test_a_subscription_is_confirmed_only_where_it_lies_with_amazon(
    sqlite: Database, one: TestClient, amazon: Amazon
) -> None:
    asks = amazon.message("", Type="SubscriptionConfirmation", SubscribeURL=CONFIRM, Token="abc", Message="You chose …")
    assert one.post("/hooks/ses", json=asks).status_code == 200
    assert amazon.asked == [CERTIFICATE, CONFIRM]
    for url in (
        "https://evil.example/?Action=ConfirmSubscription&T=1",
        CONFIRM.replace(AWS, LOOKS_ALIKE),
        "http://169.254.169.254/",
    ):
        bad = amazon.message("", Type="SubscriptionConfirmation", SubscribeURL=url, Token="abc", Message="m")
        assert one.post("/hooks/ses", json=bad).status_code == 403
    assert amazon.asked == [CERTIFICATE, CONFIRM]
    assert state(sqlite) == (0, 0, 0)


def ago(minutes: int) -> str:
    return f"{datetime.now(UTC) - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S.000Z}"


FORGERIES: dict[str, Callable[[Amazon], dict[str, str]]] = {
    "another topic": lambda a: a.message(TopicArn="arn:aws:sns:eu-west-1:999999999999:mine"),
    "version 1": lambda a: a.message(SignatureVersion="1", algorithm=hashes.SHA1()),
    "changed": lambda a: {**a.message(), "Message": json.dumps(bounced("bram@example.org"))},
    "no signature": lambda a: {k: v for k, v in a.message().items() if k != "Signature"},
    "nonsense for a signature": lambda a: {**a.message(), "Signature": "%%%"},
    "a certificate of elsewhere": lambda a: a.message(SigningCertURL=f"https://evil.example/{PEM}"),
    "a host that looks alike": lambda a: a.message(SigningCertURL=CERTIFICATE.replace(AWS, LOOKS_ALIKE)),
    "a bucket of anybody": lambda a: a.message(SigningCertURL=f"https://sns.s3.amazonaws.com/{PEM}"),
    "a certificate over http": lambda a: a.message(SigningCertURL=CERTIFICATE.replace("https", "http")),
    "stale": lambda a: a.message(Timestamp=ago(71)),
    "from the future": lambda a: a.message(Timestamp=ago(-6)),
    "no time": lambda a: a.message(Timestamp="soon"),
    "no number": lambda a: a.message(MessageId=""),
    "another kind": lambda a: a.message(Type="Surprise"),
}  # fmt: skip


def test_what_is_forged_or_stale_changes_nothing_and_is_told_plainly(
    sqlite: Database, one: TestClient, amazon: Amazon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, make in FORGERIES.items():
        answer = one.post("/hooks/ses", json=make(amazon))
        assert answer.status_code == 403, name
        assert answer.text.startswith("refused: "), name
        assert answer.text.count("\n") == 1, name
    amazon.valid_for = timedelta(days=-1)
    assert one.post("/hooks/ses", json=amazon.message(SigningCertURL=CERTIFICATE.replace("0", "f"))).status_code == 403
    assert all(url.startswith("https://sns.eu-west-1.amazonaws.com/") for url in amazon.asked)
    assert state(sqlite) == (0, 0, 0)
    assert "amara" not in caplog.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"Type": 7}', b"[" * 50_000])
def test_nonsense_is_refused(one: TestClient, body: bytes) -> None:
    assert one.post("/hooks/ses", content=body).status_code == 403
    assert one.post("/hooks/report", content=body).status_code == 403


def test_when_amazon_does_not_answer_sns_is_asked_to_come_again(
    sqlite: Database, one: TestClient, amazon: Amazon
) -> None:
    amazon.down = True
    message = amazon.message()
    assert one.post("/hooks/ses", json=message).status_code == 503
    amazon.down = False
    assert one.post("/hooks/ses", json=message).status_code == 200
    assert suppressed(sqlite, "amara@example.org") == "bounce"


# ----------------------------------------------------------------------------- our own form


def signed(body: bytes, *, number: str = "number-1", age: int = 0, secret: bytes = SECRET) -> dict[str, str]:
    stamp = str(int(datetime.now(UTC).timestamp()) - age)
    mac = hmac.digest(secret, f"{stamp}.{number}.".encode() + body, "sha256").hex()
    return {"x-digest-time": stamp, "x-digest-number": number, "x-digest-signature": f"sha256={mac}"}


def report(client: TestClient, body: object, headers: dict[str, str] | None = None, **how: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/hooks/report", content=content, headers=signed(content, **how) if headers is None else headers)


def test_a_signed_report_is_obeyed_once(database: Database, client: TestClient) -> None:
    rows = [
        {"kind": "bounce", "email": "amara@example.org", "status": "5.1.1"},
        {"kind": "complaint", "email": "bram@example.org"},
    ]
    answer = report(client, rows)
    assert (answer.status_code, answer.text) == (200, "2 taken\n")
    assert suppressed(database, "amara@example.org") == "bounce"
    assert suppressed(database, "bram@example.org") == "complaint"
    before = state(database)
    assert report(client, rows).status_code == 409, "the same number"
    assert state(database) == before


def test_a_whole_message_must_still_prove_itself(sqlite: Database, one: TestClient) -> None:
    with sqlite.reading() as session:
        who = session.scalars(select(m.Subscriber.id).filter_by(address="amara@example.org")).one()
        key = session.scalars(select(m.Secret.value).filter_by(name="message_id")).one()
    forged = reports.dsn(to="b+1.1.00000000000000000000@news.example", rcpt="bram@example.org")
    proven = reports.dsn(to=verp(3, who, key, "news.example"), rcpt="amara@example.org")
    for n, body in enumerate((forged, proven)):
        kind = {"content-type": "message/rfc822"}
        assert report(one, body, {**signed(body, number=f"number-{n}"), **kind}).status_code == 200
    assert suppressed(sqlite, "bram@example.org") is None
    assert suppressed(sqlite, "amara@example.org") == "bounce"


def test_forged_stale_and_repeated_reports_change_nothing(sqlite: Database, one: TestClient) -> None:
    rows = [{"kind": "complaint", "email": "amara@example.org"}]
    body = json.dumps(rows).encode()
    good = signed(body)
    refused = [
        report(one, rows, secret=b"another"),
        report(one, rows, age=301),
        report(one, rows, age=-301),
        report(one, rows, number="short"),
        report(one, body + b" ", good),
        report(one, body, {**good, "x-digest-number": "number-2"}),
        report(one, body, {**good, "x-digest-time": str(int(good["x-digest-time"]) + 1)}),
        report(one, body, {k: v for k, v in good.items() if k != "x-digest-signature"}),
        report(one, body, {}),
    ]
    assert [a.status_code for a in refused] == [403] * len(refused)
    assert all(a.text.startswith("refused: ") for a in refused)
    assert report(one, [{"kind": "bounce"}]).status_code == 400
    assert state(sqlite) == (0, 0, 0)
    large = b" " * (2 * 1024 * 1024 + 1)
    assert report(one, large).status_code == 413


def test_a_failure_inside_uses_no_number_up(sqlite: Database, one: TestClient) -> None:
    rows = [{"kind": "complaint", "email": "amara@example.org"}]
    with sqlite.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE delivery_events RENAME TO away")
    answer = TestClient(one.app, "http://127.0.0.1:8000", raise_server_exceptions=False).post(
        "/hooks/report", content=json.dumps(rows).encode(), headers=signed(json.dumps(rows).encode())
    )
    assert answer.status_code in (500, 503)
    with sqlite.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE away RENAME TO delivery_events")
    assert report(one, rows).status_code == 200


def test_numbers_that_are_too_old_to_be_fresh_are_forgotten(sqlite: Database, one: TestClient) -> None:
    with sqlite.transaction() as session:
        session.add(m.HookNonce(nonce="hook:old", seen_at=datetime.now(UTC) - timedelta(hours=2)))
    report(one, [{"kind": "complaint", "email": "amara@example.org"}])
    with sqlite.reading() as session:
        assert session.scalars(select(m.HookNonce.nonce)).all() == ["hook:number-1"]


def test_hooks_that_nobody_set_up_are_closed(sqlite: Database, settings: Settings) -> None:
    client = TestClient(create_app(App(settings, sqlite)), "http://127.0.0.1:8000")
    for hook in ("ses", "report"):
        assert client.post(f"/hooks/{hook}", content=b"{}").status_code == 404
        assert client.get(f"/hooks/{hook}").status_code == 405
