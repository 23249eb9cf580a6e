"""Decoder processes: what a file can do to them, and what they cannot do."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from chestai.imaging import decoder_process, preprocess, sandbox
from chestai.imaging.errors import Unreadable
from chestai.imaging.sandbox import Sandbox
from tests.serve.support.forgery import encode_image, make_jpeg
from tests.support.dicom import EIGHT, TWELVE, a_file

GREY = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)


@pytest.fixture
def decoders() -> Iterator[Sandbox]:
    pool = Sandbox(2)
    yield pool
    pool.close()


def find_decoders() -> list[psutil.Process]:
    """The decoder processes of this process."""
    children = psutil.Process().children()
    return [child for child in children if decoder_process.__name__ in child.cmdline()]


def find_new(before: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in find_decoders() if process not in before]


@pytest.mark.parametrize("data", [encode_image(GREY), make_jpeg(GREY), a_file(EIGHT, 8)], ids=["PNG", "JPEG", "DICOM"])
def test_decodes_as_preprocessing_does(decoders: Sandbox, data: bytes) -> None:
    grey = decoders.decode(data)
    assert np.array_equal(grey, preprocess.decode(data)) and grey.dtype == np.uint8 and grey.flags.writeable
    with pytest.raises(Unreadable) as expected:
        preprocess.decode(data[:-40])
    with pytest.raises(Unreadable) as rejected:
        decoders.decode(data[:-40])
    assert rejected.value.reason == expected.value.reason


def test_replaces_killed_decoder(decoders: Sandbox) -> None:
    before = find_decoders()
    decoders.decode(encode_image(GREY))
    (decoder,) = find_new(before)
    decoder.kill()
    assert np.array_equal(decoders.decode(encode_image(GREY)), GREY)


class Killer:
    """Sends a signal to each new decoder that is busy, up to `most` of them, while it is entered."""

    def __init__(self, number: signal.Signals, most: int) -> None:
        self.before, self.number, self.most = find_decoders(), number, most
        self.killed: set[int] = set()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while len(self.killed) < self.most and not self.done.wait(0.005):
            for process in find_new(self.before):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.pid not in self.killed and process.cpu_times().user > 0.1:
                        process.send_signal(self.number)
                        self.killed.add(process.pid)

    def __enter__(self) -> "Killer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


@pytest.fixture(scope="module")
def large() -> bytes:
    return encode_image(np.random.default_rng(0).integers(0, 256, (6000, 6000), np.uint8))


def test_closing_ends_idle_processes_and_a_later_call_starts_one(decoders: Sandbox) -> None:
    before = find_decoders()
    decoders.decode(encode_image(GREY))
    assert len(find_new(before)) == 1
    decoders.close()
    assert find_new(before) == []
    assert np.array_equal(decoders.decode(encode_image(GREY)), GREY)


def test_rejects_file_that_breaks_its_decoder_twice_and_reads_the_next(decoders: Sandbox, large: bytes) -> None:
    broken = pytest.raises(Unreadable, match=r"^undecodable: the data are damaged: their decoder broke off$")
    with Killer(signal.SIGSEGV, most=2), broken:
        for _ in range(50):
            decoders.decode(large)
    assert np.array_equal(decoders.decode(encode_image(GREY)), GREY)


@pytest.mark.parametrize("limit", ["CPU time", "time"])
def test_file_that_takes_too_long_is_ended_and_tried_once(
    limit: str, decoders: Sandbox, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "time":
        monkeypatch.setattr(sandbox, "WALL_SECONDS", 0.01)
    slow = pytest.raises(Unreadable, match=r"^undecodable: it takes more than 10 s to decode$")
    with Killer(signal.SIGXCPU, most=1 if limit == "CPU time" else 0), slow:
        for _ in range(50):
            decoders.decode(large)
    monkeypatch.undo()
    assert np.array_equal(decoders.decode(encode_image(GREY)), GREY)


def test_decoder_has_no_secret_and_no_privilege(decoders: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("PGPASSWORD", "a-secret")
    before = find_decoders()
    decoders.decode(encode_image(GREY))
    (decoder,) = find_new(before)
    allowed = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OPENBLAS_NUM_THREADS", *sandbox.ENVIRONMENT}
    assert set(decoder.environ()) <= allowed | {"LC_CTYPE"}
    assert "NoNewPrivs:\t1\n" in Path(f"/proc/{decoder.pid}/status").read_text()
    assert decoder.rlimit(psutil.RLIMIT_AS) == (decoder_process.MEMORY_BYTES,) * 2
    assert decoder.rlimit(psutil.RLIMIT_FSIZE) == (0, 0) and decoder.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert decoder.rlimit(psutil.RLIMIT_CPU)[0] <= sandbox.CPU_SECONDS + 10
    assert decoder.cwd() == "/"
    files = {os.readlink(f"/proc/{decoder.pid}/fd/{name}") for name in os.listdir(f"/proc/{decoder.pid}/fd")}
    assert len(files) <= 4, files


def test_cpu_time_limit_is_of_each_file(decoders: Sandbox, large: bytes) -> None:
    before = find_decoders()
    decoders.decode(encode_image(GREY))
    (decoder,) = find_new(before)
    first = decoder.rlimit(psutil.RLIMIT_CPU)[0]
    while decoder.cpu_times().user < first - sandbox.CPU_SECONDS + 1:
        decoders.decode(large)
    decoders.decode(large)
    assert decoder.rlimit(psutil.RLIMIT_CPU)[0] > first


def test_asks_for_room_before_it_receives_an_image(decoders: Sandbox) -> None:
    asked: list[int] = []
    decoders.decode(encode_image(GREY), asked.append)
    assert asked == [GREY.size]

    def refuse(size: int) -> None:
        raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        decoders.decode(encode_image(GREY), refuse)
    assert np.array_equal(decoders.decode(encode_image(GREY)), GREY)


def test_more_callers_than_processes_take_turns(decoders: Sandbox) -> None:
    before, results = find_decoders(), []
    images = [np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8) for seed in range(12)]

    def decode(image: np.ndarray) -> None:
        results.append(np.array_equal(decoders.decode(encode_image(image)), image))

    threads = [threading.Thread(target=decode, args=(image,)) for image in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 12 and len(find_new(before)) <= 2


def test_rejects_frame_of_another_size_before_decoding_it(decoders: Sandbox) -> None:
    inner = make_jpeg(np.zeros((64, 96), np.uint8))
    data = a_file(EIGHT, 8, PixelData=encapsulate([inner]), syntax=uid.JPEGBaseline8Bit)
    with pytest.raises(Unreadable, match=r"^undecodable: compressed pixel data of 96 x 64 pixels"):
        decoders.decode(data)
    assert TWELVE.shape == EIGHT.shape == (64, 80)
