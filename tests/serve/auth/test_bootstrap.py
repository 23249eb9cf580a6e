"""The command that makes the first admin."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serve.auth.api_keys import ApiKeyAuthenticator
from serve.auth.permissions import Principal
from serve.db.audit import verify
from serve.db.database import Database
from tests.support.paths import ROOT

KEY = re.compile(r"chestai_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "serve.auth.bootstrap", *words, "cluster=laptop"]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_it_makes_one_admin_and_shows_its_key_once(tmp_path: Path) -> None:
    """Also where two start it at once."""
    lake = tmp_path / "lake"
    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(lambda _: command(f"lake={lake}"), range(2)))
    assert [one.returncode for one in two] == [0, 0], two
    found = [key for one in two for key in KEY.findall(one.stdout)]
    assert len(found) == 1 and sum("there are users already" in one.stdout for one in two) == 1
    database = Database(f"sqlite:///{lake}/state/chestai.db")
    assert ApiKeyAuthenticator(database).principal(found[0]) == Principal("admin", "admin")
    assert verify(database).rows == 1
    database.close()
    logs = "".join(file.read_text() for file in (lake / "logs").iterdir())
    assert not KEY.search(logs), "the log does not hold it"


def test_a_database_that_is_away_is_told_in_a_line(tmp_path: Path) -> None:
    away = command(f"lake={tmp_path}/lake", "state.url=postgresql://u:hush@127.0.0.1:1/d")
    assert away.returncode == 2 and "does not answer" in away.stderr
    assert len(away.stderr.splitlines()) == 1 and "hush" not in away.stderr
