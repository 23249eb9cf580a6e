"""Reading files below a prefix, while another process changes what is there."""

import os
import threading
from pathlib import Path

import pytest

from serve.problems import ApiError
from serve.storage import uri_reader
from serve.storage.allowed_prefixes import resolve_allowed
from serve.storage.uri_reader import read_uri
from tests.serve.support.hostile import WHOLE

LIMIT = 2**20


def test_rejects_unreadable_file(tmp_path: Path) -> None:
    file = tmp_path / "secret.png"
    file.write_bytes(WHOLE)
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(ApiError, match="no file that can be read"):
        read_uri(str(file), [str(tmp_path)], LIMIT)


def test_rejects_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "growing.png"
    file.write_bytes(b"x")
    check_size, sizes = uri_reader._check_size, []

    def check_and_grow(size: int, limit: int) -> None:
        sizes.append(size)
        check_size(size, limit)
        file.write_bytes(bytes(LIMIT * 8))

    monkeypatch.setattr(uri_reader, "_check_size", check_and_grow)
    with pytest.raises(ApiError) as raised:
        read_uri(str(file), [str(tmp_path)], LIMIT)
    assert raised.value.problem.code == "upload_too_large"
    assert sizes == [1, LIMIT + 1], "reads at most one byte over the limit"


@pytest.mark.parametrize("target", ["file", "folder"])
def test_follows_no_link_that_replaces_a_checked_path(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or folder is replaced with a link after its path was resolved."""
    root = tmp_path.resolve() / "open"
    (root / "a").mkdir(parents=True)
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "film.png").write_bytes(b"secret")
    (root / "a" / "film.png").write_bytes(WHOLE)

    def resolve_then_replace(uri: str, prefixes: list[str]) -> str:
        canonical = resolve_allowed(uri, prefixes)
        if target == "file":
            (root / "a" / "film.png").unlink()
            (root / "a" / "film.png").symlink_to(tmp_path / "shut" / "film.png")
        else:
            (root / "a").rename(root / "b")
            (root / "a").symlink_to(tmp_path / "shut")
        return canonical

    monkeypatch.setattr(uri_reader, "resolve_allowed", resolve_then_replace)
    with pytest.raises(ApiError) as raised:
        read_uri(str(root / "a" / "film.png"), [str(root)], LIMIT)
    assert raised.value.problem.code == "unknown_uri"


def test_reads_nothing_outside_during_a_race(tmp_path: Path) -> None:
    """A thread keeps replacing a file with a link and back."""
    root = tmp_path.resolve() / "open"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    stop = threading.Event()

    def replace_forever() -> None:
        while not stop.is_set():
            (root / "new").write_bytes(b"fine")
            (root / "new").replace(root / "film")
            (root / "new").symlink_to(tmp_path / "secret")
            (root / "new").replace(root / "film")

    thread = threading.Thread(target=replace_forever)
    thread.start()
    results = set()
    try:
        for _ in range(3000):
            try:
                results.add(read_uri(str(root / "film"), [str(root)], LIMIT)[1])
            except ApiError as error:
                results.add(error.problem.code.encode())
    finally:
        stop.set()
        thread.join()
    assert b"secret" not in results and results & {b"fine", b""}


def test_closes_all_files(tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(WHOLE)
    (tmp_path / "huge.png").write_bytes(bytes(LIMIT + 1))
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("film.png", "missing.png", "pipe", "no/such/folder.png", "huge.png", "film.png/x") * 5:
        try:
            read_uri(f"{tmp_path}/{name}", [str(tmp_path)], LIMIT)
        except ApiError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_prefixes_may_be_links_and_end_in_a_slash(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "link").symlink_to("open")
    expected = f"{tmp_path}/open/film.png"
    for prefix in (f"{tmp_path}/link", f"{tmp_path}/link/", f"{tmp_path}/open/", "/"):
        assert resolve_allowed(f"{tmp_path}/link/film.png", [prefix]) == resolve_allowed(expected, [prefix]) == expected
    assert (
        resolve_allowed("s3://bkt/in/x.png", ["s3://bkt/in/"])
        == resolve_allowed("s3://bkt/in/x.png", ["s3://bkt"])
        == "s3://bkt/in/x.png"
    )
    with pytest.raises(ApiError):
        resolve_allowed(expected, [])
