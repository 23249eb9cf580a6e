"""The operator's commands, each in a process of its own."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from chestai.clock import now
from chestai.lake.lake import Lake
from serve.auth.api_keys import ApiKeyAuthenticator
from serve.auth.permissions import Principal
from serve.db.audit import AuditEvent, append_event, verify_chain
from serve.db.database import Database
from serve.db.records import record_prediction
from serve.gateway.db.deliveries import mark_dead, queue
from serve.gateway.db.models import DeliveryRow, FilmRow
from serve.storage.image_store import ImageStore
from tests.serve.support.samples import fill_image_store, make_image, make_prediction, sha, stored_files
from tests.support.paths import ROOT

KEY = re.compile(r"chestai_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
NEW = {"revision": 0, "reviews": 0}
UNREACHABLE = "state.url=postgresql://u:hush@127.0.0.1:1/d"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "serve.admin", *words]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_prints_the_usage_without_a_known_command() -> None:
    for result in (run(), run("verify", "cluster=laptop")):
        assert result.returncode == 1 and result.stderr.startswith("usage: python -m serve.admin (verify-audit")
    shown = run("--help")
    assert (
        shown.returncode == 0 and shown.stdout.startswith("usage: ") and "first-key: creates an admin" in shown.stdout
    )


def test_verify_audit_prints_the_anchor_and_fails_on_another(database: Database, tmp_path: Path) -> None:
    for number in range(4):
        with database.write_session() as session:
            append_event(session, AuditEvent(actor="rita", action="infer", object=sha(number)))
    where = [f"lake={tmp_path}/lake", f"state.url={database.url.render_as_string(False)}", "cluster=laptop"]
    result, anchor = run("verify-audit", *where), f"4:{verify_chain(database).hash}"
    assert (result.returncode, result.stdout) == (0, f"audit: 4 rows are whole; the last is {anchor}\n")
    assert run("verify-audit", anchor, *where).returncode == 0
    other = run("verify-audit", f"4:{'0' * 64}", *where)
    assert other.returncode == 1 and other.stdout.startswith("audit: broken at 4: the row is not the one")


def test_verify_audit_names_a_missing_or_unreachable_database(tmp_path: Path) -> None:
    missing = run("verify-audit", f"lake={tmp_path}/lake", "cluster=laptop")
    assert missing.returncode == 2 and missing.stderr.endswith("there is no such database yet\n")
    assert not (tmp_path / "lake" / "state").exists()
    unreachable = run("verify-audit", f"lake={tmp_path}/lake", UNREACHABLE, "cluster=laptop")
    assert unreachable.returncode == 2 and len(unreachable.stderr.splitlines()) == 1
    assert "cannot be read" in unreachable.stderr and "hush" not in unreachable.stderr


def test_purge_deletes_old_images_and_prints_the_counts(tmp_path: Path) -> None:
    lake = f"lake={tmp_path}/lake"
    database, images = Database(f"sqlite:///{tmp_path}/lake/state/chestai.db"), ImageStore(Lake(f"{tmp_path}/lake"))
    database.migrate()
    fill_image_store(database, images, tmp_path)
    with database.write_session() as session:
        received = make_image("new", uri=images.save(sha("new"), b"new")).model_copy(update={"received_at": now()})
        record_prediction(session, received, make_prediction("new").model_copy(update={"at": now()}))
    result = run("purge", lake, "state.retention_days=0.5", "cluster=laptop")
    assert result.returncode == 0 and result.stdout.startswith("retention: 4 images, 4 predictions, "), result.stderr
    assert [file.name for file in stored_files(tmp_path)] == [sha("new")]
    unset = run("purge", lake, "cluster=laptop")
    assert unset.returncode == 2 and "state.retention_days is null" in unset.stderr
    missing = run("purge", f"lake={tmp_path}/other", "state.retention_days=1", "cluster=laptop")
    assert missing.returncode == 2 and "there is no such database yet" in missing.stderr


def test_retry_deliveries_queues_what_was_given_up(tmp_path: Path) -> None:
    where = [f"lake={tmp_path}/lake", "cluster=laptop"]
    database = Database(f"sqlite:///{tmp_path}/lake/state/chestai.db")
    database.migrate()
    with database.write_session() as session:
        session.add(FilmRow(film_id=sha(1), sop_instance="1.2", study="1.3", received_at=now(), done_at=now(), **NEW))
        for destination in ("pacs", "ehr"):
            queue(session, sha(1), "1.3", 1, 0, [(destination, "sr")])
        for row in session.scalars(select(DeliveryRow)):
            mark_dead(session, row.delivery_id, "it was away")
    unknown = run("retry-deliveries", "pacs", *where)
    assert unknown.returncode == 2 and "gateway.destinations has no pacs" in unknown.stderr
    known = "gateway.destinations={pacs: {kind: stow, url: 'https://pacs.example'}}"
    for words, states in (("pacs", known), ["dead", "waiting"]), ((), ["waiting", "waiting"]):
        result = run("retry-deliveries", *words, *where)
        assert result.returncode == 0 and result.stdout.startswith("gateway: 1 deliveries wait"), result.stderr
        with database.read_session() as session:
            assert sorted(row.state for row in session.scalars(select(DeliveryRow))) == states


def test_first_key_creates_one_admin_and_prints_its_key_once(tmp_path: Path) -> None:
    """Even if two start it at the same time."""
    lake = tmp_path / "lake"
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: run("first-key", f"lake={lake}", "cluster=laptop"), range(2)))
    assert [one.returncode for one in results] == [0, 0], results
    keys = [key for one in results for key in KEY.findall(one.stdout)]
    assert len(keys) == 1 and sum("there is an admin with a key that works" in one.stdout for one in results) == 1
    database = Database(f"sqlite:///{lake}/state/chestai.db")
    assert ApiKeyAuthenticator(database).authenticate(keys[0]) == Principal("admin", "admin")
    assert verify_chain(database).rows == 1
    database.close()
    logs = "".join(file.read_text() for file in (lake / "logs").iterdir())
    assert not KEY.search(logs), "the key is in the log"


def test_first_key_names_an_unreachable_database_in_one_line(tmp_path: Path) -> None:
    result = run("first-key", f"lake={tmp_path}/lake", UNREACHABLE, "cluster=laptop")
    assert result.returncode == 2 and "does not answer" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and "hush" not in result.stderr
