"""The test run itself: it cannot reach the network, and its PostgreSQL dies with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.postgres import Cluster


def test_another_machine_is_out_of_reach() -> None:
    with socket.socket() as s, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        s.connect(("192.0.2.1", 80))
    with pytest.raises(pytest.fail.Exception, match=r"news\.example"):
        socket.getaddrinfo("news.example", 80)


def test_this_machine_is_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    assert socket.getaddrinfo("localhost", 80)


def test_an_invalid_name_does_not_resolve() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("relay.invalid", 25)


def test_postgresql_of_the_wheel_works_too() -> None:
    """Machines without Debian's packages run every database test on these binaries."""
    cluster = Cluster(use_debian=False)
    try:
        cluster.drop(cluster.create())
    finally:
        cluster.stop()
    assert not cluster.home.exists()


def test_postgresql_dies_with_the_run_that_started_it() -> None:
    code = "from tests.postgres import Cluster; c = Cluster(); print(c.home, flush=True); input()"
    run = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout
    assert run.stdin
    home = run.stdout.readline().strip()
    with open(f"{home}/data/postmaster.pid") as f:
        postmaster = int(f.readline())
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdin.close()
    run.stdout.close()
    subprocess.run(["rm", "-rf", home], check=True)
    for _ in range(200):
        try:
            os.kill(postmaster, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its test run")


_READS = """
import pytest

@pytest.mark.corpus
def test_reads(corpus):
    corpus.find("*.txt")
"""


def corpus_run(tmp_path: Path, *options: str) -> tuple[int, str]:
    (tmp_path / "test_reads.py").write_text(_READS)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "-p", "tests.conftest"]
    done = subprocess.run(
        [*command, tmp_path / "test_reads.py", *options], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_corpus_run_says_how_many_files_it_read_and_fails_at_none(tmp_path: Path) -> None:
    given = ("--corpus", str(tmp_path), "-m", "corpus", "-n", "1")
    code, said = corpus_run(tmp_path, *given)
    assert code == 1
    assert "corpus: 0 files read" in said
    (tmp_path / "one.txt").touch()
    code, said = corpus_run(tmp_path, *given)
    assert code == 0
    assert "corpus: 1 files read" in said


@pytest.mark.slow
def test_without_a_corpus_its_tests_are_left_out(tmp_path: Path) -> None:
    assert "1 deselected" in corpus_run(tmp_path)[1]
