"""How a session begins: greeting, EHLO, TLS, signing in.

    greeting → EHLO → STARTTLS → handshake → EHLO → AUTH → the first MAIL        security = starttls
    (handshake) greeting → EHLO → AUTH → the first MAIL                          security = tls

What is set to be protected is never sent in clear: a relay without STARTTLS, or with a certificate that does not fit,
is left, and what it says before the handshake counts for nothing. Owns no socket.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from typing import Final, Protocol

from digest.delivery.classify import printable
from digest.errors import DeliveryError
from digest.types import Relay


class State(IntEnum):
    """Which reply a connection waits for."""

    DOWN = 0
    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    STARTTLS = auto()
    HANDSHAKE = auto()
    AUTH = auto()
    IDLE = auto()
    RSET = auto()
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    DOT = auto()
    LONE_DOT = auto()
    QUIT = auto()


OPENING: Final = frozenset({State.GREETING, State.EHLO, State.HELO, State.STARTTLS, State.HANDSHAKE, State.AUTH})


class Line(Protocol):
    """What the beginning of a session needs of its connection."""

    def write(self, data: bytes) -> None: ...

    def expect(self, state: State) -> None: ...

    def drop(self, reason: str, *, hopeless: bool = False) -> None: ...

    def refuse_service(self, code: int, text: bytes) -> None: ...

    def secure(self) -> None: ...

    def begin(self) -> None: ...


class Opening:
    """The beginning of one session after the other on one connection. ``offered``: extensions and their words."""

    def __init__(self, line: Line, relay: Relay) -> None:
        self._line, self._relay = line, relay
        self.handlers: Mapping[State, Callable[[int, bytes], None]] = {
            State.GREETING: self._on_greeting, State.EHLO: self._on_ehlo, State.HELO: self._on_helo,
            State.STARTTLS: self._on_starttls, State.HANDSHAKE: self.noise, State.AUTH: self._on_auth,
        }  # fmt: skip
        self.reset()

    def reset(self) -> None:
        self.offered: dict[bytes, list[bytes]] = {}
        self._secured = self._relay.security == "tls"
        self._secrets: list[bytes] = []

    def secured(self) -> None:
        """The handshake is done. RFC 3207 §4.2: forget what was said before it, and ask again."""
        self._secured, self.offered = True, {}
        self._say_hello(b"EHLO", State.EHLO)

    def _say_hello(self, verb: bytes, state: State) -> None:
        self._line.write(b"%b %b\r\n" % (verb, self._relay.helo.encode("ascii")))
        self._line.expect(state)

    def _on_greeting(self, code: int, text: bytes) -> None:
        if code == 220:
            self._say_hello(b"EHLO", State.EHLO)
        else:
            self._line.refuse_service(code, text)

    def _on_ehlo(self, code: int, text: bytes) -> None:
        if code == 250:
            words = [line.upper().split() for line in text.split(b"\n")[1:]]
            self.offered = {line[0]: line[1:] for line in words if line}
            self._go_on()
        elif code >= 500 and self._relay.security != "starttls":  # RFC 5321 §3.2: an older server
            self._say_hello(b"HELO", State.HELO)
        else:
            self._line.refuse_service(code, text)

    def _on_helo(self, code: int, text: bytes) -> None:
        if code == 250:
            self._go_on()
        else:
            self._line.refuse_service(code, text)

    def _go_on(self) -> None:
        if self._relay.security == "starttls" and not self._secured:
            self._start_tls()
        elif self._relay.username is not None:
            self._sign_in(self._relay.username, self._relay.password or "")
        else:
            self._line.begin()

    # -- TLS

    def _start_tls(self) -> None:
        if b"STARTTLS" in self.offered:
            self._line.write(b"STARTTLS\r\n")
            self._line.expect(State.STARTTLS)
        else:
            self._line.drop(
                "it does not offer STARTTLS, and mail is not sent in clear instead; set smtp.security and smtp.port to "
                "what it offers",
                hopeless=True,
            )

    def _on_starttls(self, code: int, text: bytes) -> None:
        if code == 220:
            self._line.secure()
        else:
            self._line.refuse_service(code, text)

    def noise(self, code: int = 0, text: bytes = b"") -> None:
        """Something came with the reply to STARTTLS: put there by somebody on the way (RFC 3207 §6)."""
        self._line.drop("it sent something in clear that TLS should protect", hopeless=True)

    # -- signing in

    def _sign_in(self, username: str, password: str) -> None:
        """RFC 4954 §4; PLAIN is RFC 4616."""
        known = self.offered.get(b"AUTH", [])
        name, secret = username.encode(), password.encode()
        if b"PLAIN" in known:
            self._line.write(b"AUTH PLAIN %b\r\n" % base64.b64encode(b"\0%b\0%b" % (name, secret)))
        elif b"LOGIN" in known:
            self._secrets = [base64.b64encode(name), base64.b64encode(secret)]
            self._line.write(b"AUTH LOGIN\r\n")
        else:
            self._line.drop("it offers neither AUTH PLAIN nor AUTH LOGIN; leave smtp.username out", hopeless=True)
            return
        self._line.expect(State.AUTH)

    def _on_auth(self, code: int, text: bytes) -> None:
        if code == 235:
            self._line.begin()
        elif code == 334 and self._secrets:
            self._line.write(self._secrets.pop(0) + b"\r\n")
            self._line.expect(State.AUTH)
        elif code >= 500:
            said = f"{code} {printable(text)[:200]}"
            reason = f"it answered {said!r} to smtp.username and its password; check smtp.password_file"
            self._line.drop(reason, hopeless=True)
        else:
            self._line.refuse_service(code, text)


def context(relay: Relay) -> ssl.SSLContext | None:
    """How TLS is spoken with that relay: its certificate must fit its name. None: it is not spoken."""
    if relay.security == "none":
        return None
    try:
        return ssl.create_default_context(cafile=relay.ca_file)
    except (OSError, ssl.SSLError):
        raise DeliveryError(
            f"The certificates in {relay.ca_file} cannot be read; name a PEM file in smtp.ca_file, or leave it out."
        ) from None


def certificate_fault(problem: ssl.SSLCertVerificationError) -> str:
    """Why a certificate was refused, and what to do."""
    why = printable(problem.verify_message or str(problem))[:200].rstrip(".")
    return f"its certificate does not fit: {why}; set smtp.host to a name it is for, or smtp.ca_file to who signed it"
