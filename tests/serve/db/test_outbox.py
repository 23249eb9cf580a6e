"""Writes while the database is down: none is lost, none counts twice, and their order is kept."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from serve.db.outbox import Outbox, OutboxFull, Write
from tests.serve.support.processes import poll


class FakeDatabase:
    """Keeps what was written to it. down: refuses writes. unconfirmed: takes writes, but reports a failure."""

    def __init__(self, down: bool = False) -> None:
        self.down, self.unconfirmed = down, False
        self.written: list[str] = []

    def __call__(self, writes: Sequence[Write]) -> None:
        if self.down:
            raise OperationalError("", {}, Exception())
        for kind, content in writes:
            if kind == "wrong":
                raise IntegrityError("", {}, Exception())
            if content[0] not in self.written:  # repeating a write changes nothing
                self.written.append(content[0])
        if self.unconfirmed:
            raise OperationalError("", {}, Exception())


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@contextmanager
def open_outbox(database: FakeDatabase, folder: Path) -> Iterator[Outbox]:
    outbox = Outbox(database, folder, 1, retry_s=0.01)
    yield outbox
    outbox.close()


def write(name: str) -> list[Write]:
    return [("some", [name])]


def test_replays_writes_in_order_and_once(tmp_path: Path, database: FakeDatabase) -> None:
    with open_outbox(database, tmp_path) as outbox:
        outbox.submit(write("a"))
        database.down = True
        for name in "bcd":
            outbox.submit(write(name))
        assert database.written == ["a"] and outbox.counts().pending == 3 and not outbox.flush(0.05)
        assert outbox.counts().pending_bytes == 3 * len('[["some",["b"]]]\n')
        database.down = False
        assert outbox.flush(10)
        outbox.submit(write("e"))
        counts = outbox.counts()
    assert database.written == list("abcde")
    assert (counts.direct, counts.spooled, counts.replayed, counts.rejected, counts.pending) == (2, 3, 3, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_counts_a_write_once_when_its_commit_was_not_confirmed(tmp_path: Path, database: FakeDatabase) -> None:
    with open_outbox(database, tmp_path) as outbox:
        database.unconfirmed = True
        outbox.submit(write("a"))
        outbox.submit(write("b"))
        database.unconfirmed = False
        assert outbox.flush(10) and database.written == ["a", "b"]


def test_file_is_private_and_taken_over_by_the_next_process(tmp_path: Path) -> None:
    folder = tmp_path / "backlog"
    database = FakeDatabase(down=True)
    first = Outbox(database, folder, 1)
    first.submit(write("a"))
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    with open_outbox(database, folder) as living:
        assert living.counts().pending == 0, "the file of a living process is not touched"
        first.close()
        with pytest.raises(RuntimeError, match="closed"):
            first.submit(write("b"))
        with open_outbox(database, folder) as second:
            second.submit(write("c"))
            assert second.counts().pending == 2
            database.down = False
            assert second.flush(10) and database.written == ["a", "c"]
    assert list(folder.iterdir()) == []


def test_takes_over_a_file_while_running(tmp_path: Path, database: FakeDatabase) -> None:
    with open_outbox(database, tmp_path) as outbox:
        (tmp_path / "dead").write_text('[["some",["a"]]]\n')
        (tmp_path / "dead").rename(tmp_path / "dead.jsonl")
        poll(lambda: outbox.flush(0) and database.written == ["a"], interval_s=0.01)
    assert list(tmp_path.iterdir()) == []


def test_ignores_an_incomplete_last_line(tmp_path: Path, database: FakeDatabase) -> None:
    (tmp_path / "dead.jsonl").write_text('[["some",["a"]]]\n[["some",["b"]]]\n[["some",["c')
    with open_outbox(database, tmp_path) as outbox:
        assert outbox.flush(10) and database.written == ["a", "b"]


def test_wrong_write_raises_at_once_or_is_set_aside_during_replay(tmp_path: Path, database: FakeDatabase) -> None:
    with open_outbox(database, tmp_path) as outbox:
        with pytest.raises(IntegrityError):
            outbox.submit([("wrong", ["x"])])
        database.down = True
        outbox.submit(write("a"))
        outbox.submit([("wrong", ["y"])])
        outbox.submit(write("b"))
        database.down = False
        assert outbox.flush(10) and database.written == ["a", "b"]
        assert (outbox.counts().rejected, outbox.counts().replayed) == (1, 2)
        (rejected,) = tmp_path.glob("rejected*")
        assert json.loads(rejected.read_text()) == [["wrong", ["y"]]]
        assert stat.S_IMODE(rejected.stat().st_mode) == 0o600


def test_full_outbox_raises_and_keeps_its_writes(tmp_path: Path) -> None:
    database = FakeDatabase(down=True)
    with open_outbox(database, tmp_path) as outbox:
        big = "x" * 400_000
        outbox.submit(write(f"1{big}"))
        outbox.submit(write(f"2{big}"))
        with pytest.raises(OutboxFull, match=r"state\.backlog_mb=1"):
            outbox.submit(write(f"3{big}"))
        outbox.submit(write("small"))
        database.down = False
        assert outbox.flush(10) and [name[:1] for name in database.written] == ["1", "2", "s"]


SUBMIT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from serve.db.outbox import Outbox

def down(writes):
    raise OSError("down")

outbox = Outbox(down, Path(sys.argv[1]), 1)
for number in range(20):
    outbox.submit([("some", [f"{number}"])])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_process_loses_nothing(tmp_path: Path, database: FakeDatabase) -> None:
    killed = subprocess.run([sys.executable, "-c", SUBMIT_AND_DIE, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with open_outbox(database, tmp_path) as outbox:
        assert outbox.flush(10) and database.written == [str(number) for number in range(20)]
