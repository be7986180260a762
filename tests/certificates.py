"""An authority and certificates it signed, for tests of TLS."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass
class Authority:
    """Writes into *folder*: ``ca`` is the file that a client trusts."""

    folder: Path

    def __post_init__(self) -> None:
        self.ca = self.folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        certificate = self._signed(self._name, self._key.public_key(), [], days=1, ca=True)
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))

    def context(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """A server's, with a certificate for these hosts or addresses; negative *days*: out of date."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name(names[0]), key.public_key(), list(names), days=days, ca=False)
        file = self.folder / f"{names[0]}.pem"
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(certificate.public_bytes(Encoding.PEM) + text)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, names: list[str], *, days: int, ca: bool
    ) -> x509.Certificate:
        ends = datetime.now(UTC) + timedelta(days=days)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(ends - timedelta(days=9)).not_valid_after(ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_alternative, names))), critical=False)
        return builder.sign(self._key, SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
