"""An IMAP and a POP3 server for one mailbox: real sockets, real TLS, as much of the protocols as a poller speaks."""

from __future__ import annotations

import re
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Held:
    """What is in the mailbox, and what goes wrong with it."""

    messages: dict[int, bytes] = field(default_factory=dict)  # uid → octets
    flags: dict[int, set[str]] = field(default_factory=dict)
    password: str = "letmein"
    uidplus: bool = True
    breaks_after: int | None = None  # so many messages handed out
    handed_out: int = 0
    sessions: int = 0

    def put(self, *messages: bytes) -> None:
        for message in messages:
            self.messages[max(self.messages, default=0) + 1] = message

    def broken(self) -> bool:
        self.handed_out += 1
        return self.breaks_after is not None and self.handed_out > self.breaks_after


class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    held: Held

    def secure(self) -> None:
        """STARTTLS: the rest of the conversation is encrypted."""
        self.request = self.server.context.wrap_socket(self.request, server_side=True)  # type: ignore[attr-defined]
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

    def finish(self) -> None:
        super().finish()
        self.request.close()


class Imap(Handler):
    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        self.held.sessions += 1
        self.say("* OK ready")
        while line := self.rfile.readline():
            tag, _, rest = line.decode().rstrip("\r\n").partition(" ")
            command, _, args = rest.partition(" ")
            if command.upper() == "UID":
                command, _, args = args.partition(" ")
                command = "uid_" + command
            answer = getattr(self, command.lower(), None)
            if answer is None:
                self.say(f"{tag} BAD what?")
            elif not answer(tag, args):
                return

    def capability(self, tag: str, args: str) -> bool:
        self.say("* CAPABILITY IMAP4REV1 STARTTLS" + (" UIDPLUS" if self.held.uidplus else ""))
        self.say(f"{tag} OK done")
        return True

    def starttls(self, tag: str, args: str) -> bool:
        self.say(f"{tag} OK go ahead")
        self.wfile.flush()
        self.secure()
        return True

    def login(self, tag: str, args: str) -> bool:
        good = args.strip('"').endswith(self.held.password)
        self.say(f"{tag} OK in" if good else f"{tag} NO [AUTHENTICATIONFAILED] wrong password")
        return True

    def select(self, tag: str, args: str) -> bool:
        if args.strip('"') != "INBOX":
            self.say(f"{tag} NO no such folder")
            return True
        self.say(f"* {len(self.held.messages)} EXISTS")
        self.say(f"{tag} OK [READ-WRITE] selected")
        return True

    def uid_search(self, tag: str, args: str) -> bool:
        first, last = map(int, re.match(r"(\d+):(\d+)", args).groups())  # type: ignore[union-attr]
        uids = sorted(self.held.messages)[first - 1 : last]
        without = {flag for word, flag in (("UNFLAGGED", r"\Flagged"), ("UNDELETED", r"\Deleted")) if word in args}
        wanted = [u for u in uids if not self.held.flags.get(u, set()) & without]
        self.say("* SEARCH " + " ".join(map(str, wanted)))
        self.say(f"{tag} OK done")
        return True

    def uid_fetch(self, tag: str, args: str) -> bool:
        uid = int(args.split()[0])
        limit = int(re.search(r"<0\.(\d+)>", args)[1])  # type: ignore[index]
        if self.held.broken():
            self.connection.close()
            return False
        if uid in self.held.messages:
            message = self.held.messages[uid]
            head = message[:limit]
            where = sorted(self.held.messages).index(uid) + 1
            opening = f"* {where} FETCH (UID {uid} RFC822.SIZE {len(message)} BODY[]<0> {{{len(head)}}}\r\n"
            self.wfile.write(opening.encode() + head + b")\r\n")
        self.say(f"{tag} OK done")
        return True

    def uid_store(self, tag: str, args: str) -> bool:
        uid, flag = int(args.split()[0]), re.search(r"\((.*)\)", args)[1]  # type: ignore[index]
        self.held.flags.setdefault(uid, set()).add(flag)
        self.say(f"{tag} OK done")
        return True

    def uid_expunge(self, tag: str, args: str) -> bool:
        return self._expunge(tag, set(map(int, args.split(","))))

    def expunge(self, tag: str, args: str) -> bool:
        return self._expunge(tag, set(self.held.messages))

    def _expunge(self, tag: str, among: set[int]) -> bool:
        for uid in [u for u in self.held.messages if u in among and r"\Deleted" in self.held.flags.get(u, set())]:
            del self.held.messages[uid]
        self.say(f"{tag} OK done")
        return True

    def logout(self, tag: str, args: str) -> bool:
        self.say("* BYE bye")
        self.say(f"{tag} OK done")
        return False


class Pop(Handler):
    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        self.held.sessions += 1
        uids, marked = sorted(self.held.messages), set[int]()
        self.say("+OK ready")
        while line := self.rfile.readline():
            command, _, args = line.decode().strip().partition(" ")
            match command.upper():
                case "USER":
                    self.say("+OK")
                case "PASS":
                    self.say("+OK" if args == self.held.password else "-ERR [AUTH] wrong password")
                case "CAPA":
                    self.wfile.write(b"+OK\r\nSTLS\r\n.\r\n")
                case "STLS":
                    self.say("+OK")
                    self.wfile.flush()
                    self.secure()
                case "STAT":
                    self.say(f"+OK {len(uids)} {sum(len(self.held.messages[u]) for u in uids)}")
                case "RETR":
                    if self.held.broken():
                        self.wfile.write(b"+OK\r\nFrom: cut off in the mid")
                        return
                    body = self.held.messages[uids[int(args) - 1]].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
                    stuffed = re.sub(rb"(?m)^\.", b"..", body)
                    self.wfile.write(b"+OK\r\n" + stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n") + b".\r\n")
                case "DELE":
                    marked.add(uids[int(args) - 1])
                    self.say("+OK")
                case "QUIT":
                    for uid in marked:
                        self.held.messages.pop(uid, None)
                    self.say("+OK")
                    return
                case _:
                    self.say("-ERR what?")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, block_on_close = True, True, False

    def __init__(self, handler: type, context: ssl.SSLContext, at_once: bool) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.context, self.at_once = context, at_once

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        connection, address = super().get_request()
        return (self.context.wrap_socket(connection, server_side=True) if self.at_once else connection), address

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(protocol: str, held: Held, certificate: Path, *, tls: bool = True) -> Iterator[int]:
    """The server in a thread of its own; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = type("Handler", (Imap if protocol == "imap" else Pop,), {"held": held})
    with _Server(handler, context, tls) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def make_certificate(path: Path, name: str = "localhost") -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
