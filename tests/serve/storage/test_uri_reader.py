"""Reading below a prefix, while somebody changes what is there."""

import os
import threading
from pathlib import Path

import pytest

from serve.problems import ApiError
from serve.storage import uri_reader
from serve.storage.allowed_prefixes import resolve_allowed
from serve.storage.uri_reader import fetch
from tests.serve.support.hostile import WHOLE

LIMIT = 2**20


def test_a_file_of_another_owner_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    file.write_bytes(WHOLE)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(ApiError, match="no file that can be read"):
        fetch(str(file), [str(tmp_path)], LIMIT)


def test_a_file_that_grows_meanwhile_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "growing.png"
    file.write_bytes(b"x")
    check, sizes = uri_reader._check, []

    def checked(size: int, limit: int) -> None:
        sizes.append(size)
        check(size, limit)
        file.write_bytes(bytes(LIMIT * 8))

    monkeypatch.setattr(uri_reader, "_check", checked)
    with pytest.raises(ApiError) as told:
        fetch(str(file), [str(tmp_path)], LIMIT)
    assert told.value.problem.code == "upload_too_large"
    assert sizes == [1, LIMIT + 1], "a byte more than is allowed, and no more, is read"


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_link_that_comes_in_between_is_not_followed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody exchanges a file, or a folder, for a link after it was looked at: every time."""
    root = tmp_path.resolve() / "open"
    (root / "a").mkdir(parents=True)
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "film.png").write_bytes(b"secret")
    (root / "a" / "film.png").write_bytes(WHOLE)

    def looked(uri: str, prefixes: list[str]) -> str:
        canonical = resolve_allowed(uri, prefixes)
        if where == "file":
            (root / "a" / "film.png").unlink()
            (root / "a" / "film.png").symlink_to(tmp_path / "shut" / "film.png")
        else:
            (root / "a").rename(root / "b")
            (root / "a").symlink_to(tmp_path / "shut")
        return canonical

    monkeypatch.setattr(uri_reader, "resolve_allowed", looked)
    with pytest.raises(ApiError) as told:
        fetch(str(root / "a" / "film.png"), [str(root)], LIMIT)
    assert told.value.problem.code == "unknown_uri"


def test_under_a_race_nothing_from_outside_is_read(tmp_path: Path) -> None:
    """A link and a file change places all the time."""
    root = tmp_path.resolve() / "open"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    ended = threading.Event()

    def exchange() -> None:
        while not ended.is_set():
            (root / "new").write_bytes(b"fine")
            (root / "new").replace(root / "film")
            (root / "new").symlink_to(tmp_path / "secret")
            (root / "new").replace(root / "film")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(fetch(str(root / "film"), [str(root)], LIMIT)[1])
            except ApiError as error:
                seen.add(error.problem.code.encode())
    finally:
        ended.set()
        thread.join()
    assert b"secret" not in seen and seen & {b"fine", b""}


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(WHOLE)
    (tmp_path / "huge.png").write_bytes(bytes(LIMIT + 1))
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("film.png", "missing.png", "pipe", "no/such/folder.png", "huge.png", "film.png/x") * 5:
        try:
            fetch(f"{tmp_path}/{name}", [str(tmp_path)], LIMIT)
        except ApiError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_prefixes_may_be_links_and_end_as_they_like(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "link").symlink_to("open")
    wanted = f"{tmp_path}/open/film.png"
    for prefix in (f"{tmp_path}/link", f"{tmp_path}/link/", f"{tmp_path}/open/", "/"):
        assert resolve_allowed(f"{tmp_path}/link/film.png", [prefix]) == resolve_allowed(wanted, [prefix]) == wanted
    assert (
        resolve_allowed("s3://bkt/in/x.png", ["s3://bkt/in/"])
        == resolve_allowed("s3://bkt/in/x.png", ["s3://bkt"])
        == "s3://bkt/in/x.png"
    )
    with pytest.raises(ApiError):
        resolve_allowed(wanted, [])
