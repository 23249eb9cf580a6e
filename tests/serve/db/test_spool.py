"""The spool file when the disk fails."""

import os
from pathlib import Path

import pytest

from serve.db.spool import Spool


def test_holds_only_complete_lines_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool.create(tmp_path)
    spool.append(b"one")
    pwrite = os.pwrite

    def write_two_bytes_then_fail(file: int, data: bytes, at: int) -> int:
        if at > spool.size:
            raise OSError(28, "No space left on device")
        return pwrite(file, data[:2], at)

    monkeypatch.setattr(os, "pwrite", write_two_bytes_then_fail)
    with pytest.raises(OSError, match="No space"):
        spool.append(b"two")
    monkeypatch.undo()
    spool.append(b"three")
    assert spool.path.read_bytes() == b"one\nthree\n" and spool.count == 2
    for line in (b"one", b"three"):
        assert spool.peek() == line
        spool.pop(line)
    assert spool.peek() is None and spool.path.read_bytes() == b""
    spool.close()
