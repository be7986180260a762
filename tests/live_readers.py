"""Programs that people read feeds with, driven as their users drive them; and a wire that counts what they are told.

`Reader.reload` fetches everything subscribed and returns the ids or titles of what the reader shows as new.
"""

from __future__ import annotations

import mailbox
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from email.header import decode_header, make_header
from pathlib import Path
from typing import Protocol

import feedparser
import feedparser_sgmllib
import pytest

sys.modules.setdefault("sgmllib", feedparser_sgmllib)  # reader has a feedparser of its own, which wants it by that name
import reader  # noqa: E402


class Reader(Protocol):
    def subscribe(self, url: str) -> None: ...

    def reload(self) -> set[str]: ...


def program(name: str, package: str) -> str:
    """A program of Debian's; no program: an error, never a skip."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"there is no {name}; run `apt-get install {package}`, or `./run test full`, which does")
    return found


class Newsboat:
    """A reader for terminals, in C++, with a cache in SQLite."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._program = folder, program("newsboat", "newsboat")
        self._shown: set[str] = set()

    def subscribe(self, url: str) -> None:
        (self._folder / "urls").write_text(f"{url}\n")
        (self._folder / "config").write_text("")

    def reload(self) -> set[str]:
        files = [word for flag, name in (("-u", "urls"), ("-C", "config"), ("-c", "cache.db"))
                 for word in (flag, str(self._folder / name))]  # fmt: skip
        home = {"HOME": str(self._folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        subprocess.run([self._program, *files, "-x", "reload"], check=True, env=home, capture_output=True, timeout=120)
        with closing(sqlite3.connect(self._folder / "cache.db")) as cache:
            shown = [guid for (guid,) in cache.execute("SELECT guid FROM rss_item")]
        assert len(shown) == len(set(shown))
        new, self._shown = set(shown) - self._shown, set(shown)
        return new


class Rss2email:
    """Turns what is new into mails, here in a folder: a mail that comes twice is seen twice."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._program, self._mails = folder, program("r2e", "rss2email"), 0
        (folder / "r2e.cfg").write_text(
            "[DEFAULT]\nfrom = a@example.org\nto = b@example.org\nemail-protocol = maildir\n"
            f"maildir-path = {folder}/mails\nmaildir-mailbox = INBOX\n"
        )
        (folder / "mails").mkdir()
        mailbox.Maildir(folder / "mails" / "INBOX", create=True)

    def _run(self, *words: str) -> None:
        files = ["-c", str(self._folder / "r2e.cfg"), "-d", str(self._folder / "r2e.json")]
        home = {"HOME": str(self._folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            [self._program, *files, *words], env=home, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def subscribe(self, url: str) -> None:
        self._run("add", "feed", url)

    def reload(self) -> set[str]:
        self._run("run")
        mails = list(mailbox.Maildir(self._folder / "mails" / "INBOX"))
        new = len(mails) - self._mails
        self._mails = len(mails)
        newest = sorted(mails, key=lambda mail: mail.get_date())[-new:] if new else []
        subjects = {str(make_header(decode_header(mail["Subject"]))) for mail in newest}
        assert len(subjects) == new
        return subjects


class Library:
    """The library named reader."""

    def __init__(self, folder: Path) -> None:
        self._reader = reader.make_reader(str(folder / "reader.sqlite"))
        self._shown: set[str] = set()

    def subscribe(self, url: str) -> None:
        self._reader.add_feed(url)

    def reload(self) -> set[str]:
        for result in self._reader.update_feeds_iter(scheduled=False):
            if isinstance(result.value, Exception):
                raise result.value
        shown = {entry.id for entry in self._reader.get_entries()}
        new, self._shown = shown - self._shown, shown
        return new


class Feedparser:
    """As its manual says: keep ETag and Last-Modified, follow a permanent redirect for good."""

    def __init__(self, _folder: Path) -> None:
        self._url, self._etag, self._modified = "", None, None
        self._shown: set[str] = set()

    def subscribe(self, url: str) -> None:
        self._url = url

    def reload(self) -> set[str]:
        got = feedparser.parse(self._url, etag=self._etag, modified=self._modified)
        if got.status == 304:
            return set()
        if got.status == 301:
            self._url = got.href
        assert got.status in (200, 301)
        assert not got.bozo, got.bozo_exception
        self._etag, self._modified = got.get("etag"), got.get("modified")
        new = {entry.id for entry in got.entries} - self._shown
        self._shown |= new
        return new


LIBRARIES: dict[str, Callable[[Path], Reader]] = {"reader": Library, "feedparser": Feedparser}
PROGRAMS: dict[str, Callable[[Path], Reader]] = {"newsboat": Newsboat, "rss2email": Rss2email}


class Wire:
    """Carries bytes between clients and a server as they are, and remembers the status of each answer."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.statuses: list[int] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def told(self) -> list[int]:
        """The statuses since this was last asked."""
        told, self.statuses = self.statuses, []
        return told

    def close(self) -> None:
        self._door.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as server:
            asking = threading.Thread(target=self._carry, args=(client, server, False), daemon=True)
            asking.start()
            self._carry(server, client, answers=True)
            asking.join()

    def _carry(self, there: socket.socket, here: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while piece := there.recv(1 << 16):
                if answers:
                    self.statuses += [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", piece)]
                here.sendall(piece)
        for end in (there, here):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR if answers else socket.SHUT_WR)
