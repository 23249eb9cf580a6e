"""The cache of exports: damaged files, several processes, failures."""

import multiprocessing
from pathlib import Path

import pytest

from chestai.model.runtimes.cache import cached
from tests.chestai.model.runtime_network import refuse_to_make

PARTS = {"graph": b"<net/>" * 20, "weights": bytes(range(256))}


def test_detects_any_damage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert cached(path, tuple(PARTS), lambda: PARTS) == PARTS == cached(path, tuple(PARTS), refuse_to_make)
    whole = path.read_bytes()
    damages = [whole[:length] for length in range(0, len(whole), 7)]
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        damages.append(bytes(changed))
    made = 0

    def anew() -> dict[str, bytes]:
        nonlocal made
        made += 1
        return PARTS

    for damage in damages:
        path.write_bytes(damage)
        assert cached(path, tuple(PARTS), anew) == PARTS
    assert made > len(damages) / 2, "some bytes, as of times, say nothing"


def test_concurrent_processes_read_only_complete_files(tmp_path: Path) -> None:
    path, processes = tmp_path / "deep" / "file", multiprocessing.get_context("fork")
    with processes.Pool(4) as pool:
        whole = pool.starmap(_busy, [(path, seed) for seed in range(4)])
    assert all(whole)
    assert list(path.parent.iterdir()) == [path], "what was begun is gone"


def _busy(path: Path, seed: int) -> bool:
    """Make, read and delete the same file again and again; whether all that was read was whole."""
    parts = {"one": bytes([7]) * 300_000, "other": b"end"}
    for turn in range(60):
        if cached(path, tuple(parts), lambda: parts) != parts:
            return False
        if (turn + seed) % 3 == 0:
            path.unlink(missing_ok=True)
    return cached(path, tuple(parts), lambda: parts) == parts


def test_failed_export_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        cached(tmp_path / "file", ("part",), lambda: {"part": None})  # type: ignore[dict-item]
    with pytest.raises(AssertionError):
        cached(tmp_path / "file", ("part",), refuse_to_make)
    assert list(tmp_path.iterdir()) == []
