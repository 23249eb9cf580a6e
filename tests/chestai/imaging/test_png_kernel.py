"""The compiled kernel: built once, kept, loaded by many, and left aside where it cannot be had."""

import importlib.util
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import psutil
import pytest

from chestai.imaging import decoder_process
from chestai.imaging.fast_png import kernel, store
from chestai.imaging.sandbox import Sandbox
from tests.chestai.imaging.conftest import Build
from tests.serve.support.forgery import encode_image
from tests.support.grey_pngs import decode, make_file, make_rows, pack, same

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
CODE = store.Code("name", 4.0, b"machine code")


def test_of_many_processes_one_builds_and_none_waits(build: Build) -> None:
    assert sum(look["builds"] for look in build.looks) == 1
    assert not any(look["found"] for look in build.looks)
    assert max(look["seconds"] for look in build.looks) < 2
    name = store.name_file()
    assert sorted(path.name for path in build.folder.iterdir()) == [name, f"{name}.lock"]


def test_build_is_in_no_other_process_of_the_kernel(build: Build) -> None:
    """A fresh finder loads what is there, at once, and starts nothing."""
    before = psutil.Process().children()
    found = kernel.Finder(build.folder).find()
    assert found is not None and psutil.Process().children() == before
    rows = np.column_stack([np.zeros(len(GREY), np.uint8), GREY])
    assert np.array_equal(found(rows), GREY)


def test_kernel_is_faster_than_opencv(build: Build) -> None:
    kept = store.read(build.folder / store.name_file())
    assert isinstance(kept, store.Code) and kept.gain >= 1.1


def test_files_come_back_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert store.read(path) is None
    store.write(path, CODE)
    assert store.read(path) == CODE
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at])
        assert store.read(path) is None
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        kept = store.read(path)
        assert kept is None or (isinstance(kept, store.Code) and kept.machine_code == CODE.machine_code)


def test_file_of_another_user_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(tmp_path / "file", CODE)
    os.chown(tmp_path / "file", 4321, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert store.read(tmp_path / "file") is None


def test_refusal_holds_for_a_day(tmp_path: Path) -> None:
    path, refusal = tmp_path / "file", store.Refusal("too slow")
    store.write(path, refusal)
    assert store.read(path) == refusal
    old = time.time() - store.REFUSAL_SECONDS - 1
    os.utime(path, (old, old))
    assert store.read(path) is None


class Warned:
    """A finder in a folder of its own, asked until it has decided, and what it logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture, folder: Path) -> None:
        self.finder = kernel.Finder(folder)
        with caplog.at_level(logging.WARNING):
            self.found = [self.finder.find() for _ in range(3)]
        self.messages = [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", ["numba", "llvmlite"])
def test_without_numba_opencv_decodes_and_the_log_says_so_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else find_spec(wanted))
    warned = Warned(caplog, tmp_path)
    assert warned.found == [None] * 3 and warned.finder.decided
    expected = f"grey PNG files are decoded by OpenCV, at a third of the speed: {name} is not installed"
    assert warned.messages == [expected]
    monkeypatch.setattr(kernel, "_finder", warned.finder)
    assert same(decode(encode_image(GREY)), GREY)


def test_refused_kernel_is_left_aside(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.write(tmp_path / store.name_file(), store.Refusal("on this CPU it loses"))
    warned = Warned(caplog, tmp_path)
    assert warned.found == [None] * 3
    assert len(warned.messages) == 1 and "on this CPU it loses" in warned.messages[0]


def test_cache_that_cannot_be_written(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    warned = Warned(caplog, tmp_path / "file")
    assert warned.found == [None] * 3
    assert len(warned.messages) == 1 and "FileExistsError" in warned.messages[0]


def test_build_that_fails_is_not_repeated(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store.sys, "executable", "/bin/false")
    finder = kernel.Finder(tmp_path)
    assert finder.find() is None and not finder.decided
    path, end = tmp_path / store.name_file(), time.monotonic() + 30
    while store.read(path) is None and time.monotonic() < end:
        time.sleep(0.02)
    assert store.read(path) == store.Refusal("its build ended with code 1")
    assert Warned(caplog, tmp_path).finder.decided


@pytest.fixture
def decoders(build: Build) -> Iterator[Sandbox]:
    pool = Sandbox()
    yield pool
    pool.close()


def test_decoder_process_loads_the_kernel_and_never_builds_it(decoders: Sandbox) -> None:
    random, before = Random(0), psutil.Process().children()
    rows = make_rows(random, 64, 70)
    data = make_file(64, 70, [pack(random, rows)])
    assert same(decoders.decode(data), decode(data))
    (process,) = [child for child in psutil.Process().children() if child not in before]
    assert decoder_process.__name__ in process.cmdline() and not process.children()
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "llvmlite" in maps and "numba" not in maps


def test_process_that_may_only_load_builds_nothing(build: Build, tmp_path: Path) -> None:
    finder = kernel.Finder(tmp_path, may_build=False)
    assert finder.find() is None and not finder.decided and not list(tmp_path.iterdir())
    store.write(tmp_path / store.name_file(), store.Refusal("none"))
    assert finder.find() is None and not finder.decided  # it does not look all the time
    finder = kernel.Finder(tmp_path, may_build=False)
    assert finder.find() is None and finder.decided
