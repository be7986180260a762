"""What tests share: a migrated database of each kind, settings in a temporary folder, no way out to the network."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from digest.bootstrap import upgrade
from digest.db import Database
from tests.postgres import Cluster

if TYPE_CHECKING:
    from digest.config import Settings

# The default suite draws the same examples on every run: what it says of a commit is true of that commit. The long
# proofs draw new ones each time (HYPOTHESIS=new), and print the blob that repeats what they found.
hypothesis_settings.register_profile("same", deadline=None, print_blob=True, derandomize=True)
hypothesis_settings.register_profile("new", deadline=None, print_blob=True)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS", "same"))

for _name in [name for name in os.environ if name.startswith("DIGEST_")]:
    del os.environ[_name]  # a developer's own settings are no part of a test

os.environ["SPAMASSASSIN"] = ""  # a second or more for each edition, where it is installed

# ----------------------------------------------------------------------------- no way out


def _stays_here(host: object) -> bool:
    if not isinstance(host, str | bytes) or host in ("", b"", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guard(event: str, args: tuple[Any, ...]) -> None:
    """Tests talk to themselves alone: another address fails the test, a name ending in .invalid resolves to nothing."""
    if event == "socket.getaddrinfo":
        host = args[0]
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and name.rstrip(".").endswith(".invalid"):  # RFC 6761 §6.4
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        try:
            ipaddress.ip_address(name or "::")
        except ValueError:
            if not _stays_here(name):
                pytest.fail(f"a test wants to look up {name!r}; tests stay on this machine")
    elif event in ("socket.connect", "socket.sendto"):
        address = args[1]
        if isinstance(address, tuple) and not _stays_here(address[0]):
            pytest.fail(f"a test wants to talk to {address[0]!r}; tests stay on this machine")


sys.addaudithook(_guard)

# ----------------------------------------------------------------------------- databases


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL a test process. No binaries: an error, never a skip."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


def _migrated(url: str) -> None:
    database = Database(url)
    upgrade(database)
    database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file; tests copy it."""
    path = tmp_path_factory.mktemp("template") / "digest.sqlite3"
    _migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster) -> str:
    """A migrated PostgreSQL database; tests clone it."""
    name = cluster.create()
    _migrated(cluster.url(name))
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database of each kind, for tests that start processes of their own."""
    if request.param == "sqlite":
        path = tmp_path / "digest.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    name = cluster.create(request.getfixturevalue("postgresql_template"))
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database, once of each kind."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """A migrated, empty SQLite database, for what does not depend on the kind."""
    shutil.copyfile(sqlite_template, tmp_path / "digest.sqlite3")
    database = Database(f"sqlite:///{tmp_path}/digest.sqlite3")
    yield database
    database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings as shipped, with everything they write kept inside the test's folder."""
    from digest.config import Settings

    none = tmp_path / "digest.toml"
    none.touch()
    return Settings.load(none, {"DIGEST_DATA_DIR": str(tmp_path)})


# ----------------------------------------------------------------------------- from outside the clone


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser for Playwright's ``executable_path``; `./run test` finds or installs one."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("no browser; run `apt-get install chromium`, or name one in $CHROMIUM")
    return found


class Corpus:
    """A folder of real articles, feeds and mails that is no part of the clone. Counts what it hands out."""

    def __init__(self, root: Path, read: set[str]) -> None:
        self.root, self._read = root, read

    def find(self, *patterns: str) -> list[Path]:
        """Every file that fits one of the glob patterns, sorted; all count as read."""
        found = sorted({path for pattern in patterns for path in self.root.glob(pattern) if path.is_file()})
        self._read.update(map(str, found))
        return found


_READ = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corpus", metavar="DIR", help="folder for the tests marked corpus; without it they are left out")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_READ] = set()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--corpus"):
        return
    left_out = [item for item in items if item.get_closest_marker("corpus")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def corpus(pytestconfig: pytest.Config) -> Corpus:
    """Only for tests marked ``corpus``."""
    return Corpus(Path(pytestconfig.getoption("--corpus")), pytestconfig.stash[_READ])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_READ].update(getattr(node, "workeroutput", {}).get("corpus", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Workers hand in what they read; the run as a whole fails if a corpus was given and nothing of it read."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["corpus"] = sorted(config.stash[_READ])
    elif config.getoption("--corpus") and not config.stash[_READ] and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if folder := config.getoption("--corpus"):
        terminalreporter.write_line(f"corpus: {len(config.stash[_READ])} files read in {folder}")
