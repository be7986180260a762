"""Notifications of Amazon SNS: are they what they say they are? Pure; whoever calls fetches the certificate.

Believed is a message of version 2 (SHA-256) from a topic that the settings name, signed with a certificate that lies on
Amazon's own hosts, and not older than SNS goes on trying. A signature alone says nothing: everybody has topics of their
own, signed as well.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

#: SNS tries again for an hour; a few minutes more for clocks that differ.
WINDOW = timedelta(minutes=70)
_AHEAD = timedelta(minutes=5)
_HOST = r"https://sns\.[a-z]{2}(?:-[a-z]+)+-[0-9]\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(_HOST + r"/SimpleNotificationService-[0-9a-f]{16,64}\.pem")
_SUBSCRIBE = re.compile(_HOST + r"/\?Action=ConfirmSubscription&[A-Za-z0-9=&:%._-]{1,2000}")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]


class Refused(Exception):
    """Not to be believed; the sentence is for whoever set the hook up, and holds nothing of the message."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A message of SNS, unverified until `verify` returns."""

    kind: str
    topic: str
    number: str  # its MessageId
    message: str
    subscribe_url: str
    certificate_url: str
    fields: Mapping[str, str]


def read_notification(body: bytes, topics: Collection[str], now: datetime) -> Notification:
    """The message, if all that can be judged before its signature is right."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("this is no JSON") from None
    if not isinstance(data, dict) or data.get("Type") not in _SIGNED:
        raise Refused("this is no message of SNS")
    fields = {key: value for key, value in data.items() if isinstance(value, str)}
    found = Notification(
        fields["Type"], fields.get("TopicArn", ""), fields.get("MessageId", ""), fields.get("Message", ""),
        fields.get("SubscribeURL", ""), fields.get("SigningCertURL", ""), fields,
    )  # fmt: skip
    if found.topic not in topics:
        raise Refused("this topic is not one of hooks.sns_topics")
    if fields.get("SignatureVersion") != "2":
        raise Refused("only SignatureVersion 2 is believed; set it on the topic")
    if not found.number or len(found.number) > 100 or not _CERTIFICATE.fullmatch(found.certificate_url):
        raise Refused("its certificate does not lie with Amazon")
    if not -_AHEAD <= now - _instant(fields.get("Timestamp", "")) <= WINDOW:
        raise Refused("it is not fresh")
    return found


def _instant(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Refused("its time cannot be read") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def verify(notification: Notification, certificate: bytes, now: datetime) -> None:
    """Refused unless the certificate's key signed the message."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        key = found.public_key()
        signature = base64.b64decode(notification.fields.get("Signature", ""), validate=True)
    except (ValueError, binascii.Error):
        raise Refused("its certificate or signature cannot be read") from None
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        raise Refused("its certificate is not valid now")
    if not isinstance(key, RSAPublicKey):
        raise Refused("its certificate has no RSA key")
    try:
        key.verify(signature, _signed_text(notification), PKCS1v15(), SHA256())
    except InvalidSignature:
        raise Refused("its signature is wrong") from None


def _signed_text(notification: Notification) -> bytes:
    names = (name for name in _SIGNED[notification.kind] if name in notification.fields)
    return "".join(f"{name}\n{notification.fields[name]}\n" for name in names).encode()


def subscribe_address(notification: Notification) -> str:
    """Where a subscription is confirmed; Refused: it does not lie with Amazon."""
    if not _SUBSCRIBE.fullmatch(notification.subscribe_url):
        raise Refused("its SubscribeURL does not lie with Amazon")
    return notification.subscribe_url
