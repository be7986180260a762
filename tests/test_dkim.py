"""DKIM signatures, judged by a verifier that is not ours."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import dkim as verifier
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from digest.delivery import dkim
from digest.delivery.dkim import Key, Signer, new_key, read_key
from digest.delivery.message import MessageFactory, message_id, system_message
from digest.errors import ConfigError
from digest.mime import qp_encode, qp_piece
from digest.types import PERSONAL_FIELDS, Body, RenderedVariant
from tests.test_message import ADA, IDENTITY, NOW, SMUGGLING, rendered

DOMAIN = "example.org"
FEW, MANY = 60, 1000


@cache
def keys(*kinds: str) -> tuple[Key, ...]:
    """One key of each kind; made once a process, an RSA key takes a while."""
    made = []
    for kind in kinds:
        private = dkim.load_pem_private_key(new_key(kind), None)  # type: ignore[arg-type]
        made.append(Key(f"{kind[:2]}2027", private))  # type: ignore[arg-type]
    return tuple(made)


def zone(*published: Key) -> Callable[..., bytes]:
    """DNS in which these keys stand."""
    records = {key.name(DOMAIN).encode() + b".": key.record.encode() for key in published}
    return lambda name, timeout=5: records.get(name, b"")


def verified(message: bytes, *published: Key) -> list[bool]:
    """What the verifier says of each signature of the message."""
    found = verifier.DKIM(message)
    count = message.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")

    def good(index: int) -> bool:
        try:
            return bool(found.verify(idx=index, dnsfunc=zone(*published)))
        except verifier.ValidationError:  # the body's hash differs
            return False

    return [good(i) for i in range(count)]


def fuzzed(seed: int) -> RenderedVariant:
    """A mail of odd texts and personal values in odd places; text alone every third time."""
    rng = random.Random(seed)
    alphabet = "abc .=\t\r\n-é日\u2028\x00\x7f<>&@ \n" + rng.choice(["", "\n" * 5, " " * 5, "."])

    def text() -> str:
        end = rng.choice(["", "\n", "\n\n", *SMUGGLING])
        return "".join(rng.choices(alphabet, k=rng.choice([0, 1, 5, 80, 400]))) + end

    def part() -> Body:
        fields = tuple(rng.choices(PERSONAL_FIELDS, k=rng.randrange(4)))
        texts = [text() for _ in range(len(fields) + 1)]
        return Body((*map(qp_piece, texts[:-1]), qp_encode(texts[-1])), fields)

    subject = "".join(rng.choices("Aé =?:\t\r\nxyz日 ", k=rng.choice([0, 3, 30, 200])))
    page = part() if seed % 3 else None
    return replace(rendered(), subject=subject, text_body=part(), html_body=page)


def signed(signer: Signer, seed: int) -> bytes:
    addressee = replace(ADA, address=f"a{seed}@example.net", message_id=message_id(b"k" * 32, seed, 1, DOMAIN))
    return b"".join(MessageFactory(IDENTITY, signer).prepare(fuzzed(seed)).build(addressee))


KINDS = [("ed25519",), ("rsa",), ("ed25519", "rsa")]


def check_many(kinds: tuple[str, ...], seeds: range) -> None:
    signer = Signer(DOMAIN, keys(*kinds))
    for seed in seeds:
        assert verified(signed(signer, seed), *keys(*kinds)) == [True] * len(kinds), f"seed {seed}"


@pytest.mark.parametrize("kinds", KINDS)
def test_another_verifier_finds_every_signature_good(kinds: tuple[str, ...]) -> None:
    check_many(kinds, range(FEW))


@pytest.mark.full
@pytest.mark.parametrize("kinds", KINDS)
def test_another_verifier_finds_a_thousand_good(kinds: tuple[str, ...]) -> None:
    check_many(kinds, range(MANY))


def test_a_confirmation_is_signed_too() -> None:
    for text in ("Please confirm.\n\n\n", "", "\n", "x"):
        message = system_message(
            IDENTITY, to="ada@example.net", subject="Confirm", text=text, html_text=None, date=NOW,
            message_id=message_id(b"k" * 32, 0, 1, DOMAIN), signer=Signer(DOMAIN, keys("ed25519", "rsa")),
        )  # fmt: skip
        assert verified(message, *keys("ed25519", "rsa")) == [True, True]


def header(message: bytes, name: bytes = b"DKIM-Signature") -> bytes:
    head = message.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ")
    return next(line for line in head.split(b"\r\n") if line.startswith(name + b":"))


def test_what_the_signature_covers() -> None:
    signature = header(signed(Signer(DOMAIN, keys("ed25519")), 1))
    covered = signature.partition(b" h=")[2].partition(b";")[0].replace(b" ", b"").split(b":")
    assert b"c=relaxed/simple" in signature
    assert b"d=example.org; s=ed2027; t=1795505405;" in signature
    assert covered.count(b"from") == 2, "a second From breaks it"
    # RFC 8058 §4: one-click unsubscribing counts only where both of its headers are signed
    assert set(covered) == {
        b"from", b"reply-to", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type", b"list-id",
        b"list-archive", b"list-unsubscribe", b"list-unsubscribe-post", b"feedback-id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\r\nTo: a1@", b"\r\nTo: b1@"),
        (b"From: ", b"From: evil@example.com\r\nFrom: "),
        (b"List-Unsubscribe-Post: List-Unsubscribe=One-Click", b"List-Unsubscribe-Post: no"),
        (b"\r\n\r\n--=_", b"\r\n\r\nx\r\n--=_"),
    ],
)
def test_a_change_on_the_way_is_seen(old: bytes, new: bytes) -> None:
    message = signed(Signer(DOMAIN, keys("ed25519", "rsa")), 1)
    changed = message.replace(old, new, 1)
    assert changed != message
    assert verified(changed, *keys("ed25519", "rsa")) == [False, False]


def test_folding_and_blanks_on_the_way_are_not_a_change() -> None:
    message = signed(Signer(DOMAIN, keys("ed25519")), 1)
    assert verified(message.replace(b"\r\nTo: ", b"\r\nTO:\r\n\t  "), *keys("ed25519")) == [True]


def test_lines_of_the_header_are_short() -> None:
    head = signed(Signer(DOMAIN, keys("rsa")), 1).partition(b"\r\nFrom:")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78


# ----------------------------------------------------------------------------- keys


def written(folder: Path, text: bytes) -> Path:
    file = folder / "key.pem"
    file.write_bytes(text)
    return file


def test_the_first_of_each_kind_signs() -> None:
    old, new, rsa_key = (Key(name, keys(kind)[0].private) for name, kind in
                         [("old", "ed25519"), ("new", "ed25519"), ("r", "rsa")])  # fmt: skip
    assert [k.selector for k in Signer(DOMAIN, [old, rsa_key, new]).keys] == ["old", "r"]
    assert [k.selector for k in Signer(DOMAIN, [new, rsa_key, old]).keys] == ["new", "r"]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_made_key_is_read_again_and_shows_nothing(tmp_path: Path, kind: dkim.Kind) -> None:
    text = new_key(kind)
    key = read_key("s1", written(tmp_path, text))
    assert key.kind == kind
    assert key.record.startswith(f"v=DKIM1; k={kind}; p=")
    assert key.name(DOMAIN) == "s1._domainkey.example.org"
    assert "private" not in repr(key)
    signer = Signer(DOMAIN, [key])
    assert verified(signed(signer, 1), key) == [True]


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes = b"") -> bytes:
    lock = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def unfit() -> dict[str, tuple[bytes, str]]:
    small = rsa.generate_private_key(65537, 1024)
    public = small.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "nothing": (b"", "no private key in PEM"),
        "something else": (b"\x00\xff" * 100, "no private key in PEM"),
        "half a key": (new_key("ed25519")[:60], "no private key in PEM"),
        "public": (public, "public key"),
        "locked": (pem(small, b"secret"), "passphrase"),
        "another curve": (pem(ec.generate_private_key(ec.SECP256R1())), "neither"),
        "too small": ((Path(__file__).parent / "data" / "dkim-512.pem").read_bytes(), "512 bits"),
    }


def test_a_file_that_cannot_sign_is_one_sentence(tmp_path: Path) -> None:
    for what, (text, why) in unfit().items():
        file = written(tmp_path, text)
        with pytest.raises(ConfigError) as e:
            read_key("s1", file)
        assert why in str(e.value), what
        assert str(file) in str(e.value)
        assert "dkim keygen s1" in str(e.value)
        assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key("s1", tmp_path / "missing.pem")


@pytest.mark.parametrize("selector", ["", "a b", "-a", "a_b", "é", "a..b", "x" * 64, "a;b"])
def test_a_selector_is_a_name_in_dns(tmp_path: Path, selector: str) -> None:
    with pytest.raises(ConfigError, match="no selector"):
        read_key(selector, written(tmp_path, new_key("ed25519")))
