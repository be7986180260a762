"""The demo's folder, ports and books: what it may touch, and that its proof can fail."""

from __future__ import annotations

import fcntl
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from digest import demo
from digest.errors import UsageError
from digest.types import CaughtMail
from tests.build import T

GOOD = demo.Proof(
    mails=100, kills=2, lost=0, repeated=3, allowed=100, explained=3, strangers=0, accepted=100, seconds=1.0
)  # fmt: skip


def environ(folder: Path) -> dict[str, str]:
    return {"DIGEST_DATA_DIR": str(folder)}


def test_a_database_of_somebody_elses_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "digest.sqlite3").write_bytes(b"years of work")
    with pytest.raises(UsageError, match="not the demo's"), demo.opened(environ(tmp_path), None):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["digest.sqlite3"]
    assert (tmp_path / "digest.sqlite3").read_bytes() == b"years of work"


def test_what_an_earlier_demo_left_goes_and_what_it_did_not_make_stays(tmp_path: Path) -> None:
    with demo.opened(environ(tmp_path), None):
        for name in ("digest.sqlite3", "notes.txt"):
            (tmp_path / name).write_text("x")
        (tmp_path / "feeds/feeds").mkdir(parents=True)
    with demo.opened(environ(tmp_path), None):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".digest-demo", "notes.txt"]


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with demo.opened(environ(tmp_path), None), pytest.raises(UsageError, match="is running"):
        demo.opened(environ(tmp_path), None).__enter__()
    with (tmp_path / ".digest-demo").open() as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_port_that_is_taken_is_told_if_asked_for_and_passed_over_if_not(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} is taken"), demo.opened(environ(tmp_path), port):
            pass
    with demo.opened(environ(tmp_path), port) as stage:
        assert stage.settings.public_url == f"http://127.0.0.1:{port}"
        assert stage.settings.live is False


def test_settings_of_an_installation_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/digest.toml").write_text('live = true\n[database]\nurl = "postgresql://prod/x"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGEST_LIVE", "true")
    monkeypatch.setenv("DIGEST_DATABASE__URL", "postgresql://prod/x")
    with demo.opened({}, None) as stage:
        assert stage.settings.live is False
        assert stage.settings.database_url == f"sqlite:///{tmp_path}/var/demo/digest.sqlite3"


# ----------------------------------------------------------------------------- the proof


def test_a_proof_holds_only_if_every_promise_was_kept() -> None:
    assert GOOD.holds
    broken = [
        {"lost": 1},
        {"repeated": 101, "explained": 101},
        {"explained": 2},
        {"strangers": 1},
        {"accepted": 99},
    ]
    for change in broken:
        proof = replace(GOOD, **change)  # type: ignore[arg-type]
        assert not proof.holds, change
        assert "BROKEN" in proof.told()
        assert len(proof.told().splitlines()) == 4


def test_the_judge_counts_by_recipient_and_message_id() -> None:
    judge = demo.Judge()

    def mail(rcpt: str, message_id: str) -> CaughtMail:
        return CaughtMail("news@example.org", (rcpt,), f"Message-ID: {message_id}\r\n\r\nHello".encode(), T)

    judge._take([mail("a@example.org", "<1@x>"), mail("b@example.org", "<2@x>")])
    judge._take([mail("a@example.org", "<1@x>"), mail("b@example.org", "<3@x>")])
    assert judge.total == 4
    assert judge.seen == Counter(
        {("a@example.org", "<1@x>"): 2, ("b@example.org", "<2@x>"): 1, ("b@example.org", "<3@x>"): 1}
    )


@pytest.mark.slow
def test_a_worker_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    proof = demo.prove(environ(tmp_path), said.append, mails=200, kills=1, seed=7)
    assert proof.holds, proof
    assert len(said) == 1
    assert proof.mails == proof.accepted == 200
    assert proof.repeated > 0  # the kills did fall while mail was on the wire
