"""Where the compiled kernel is kept: a file in the user's cache for each kind of CPU and version of what made it.

Many processes may look for it at once. One of them starts the build, with a lock that the building process inherits
and that ends with it; the others go on without. A file appears whole, under its final name, or not at all.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from chestai.lake.user_cache import find_user_cache

SOURCES = ("unfilter.py", "build.py", "kernel.py")
REFUSAL_SECONDS = 86_400.0  # after which a kernel that failed or was too slow is tried again
BUILD_SECONDS = 300.0  # the build takes four on an idle machine
ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # what a Python may need to start


@dataclass(frozen=True)
class Code:
    """Machine code, an object file of the system's format, and the name of its function. gain: times OpenCV's speed."""

    symbol: str
    gain: float
    machine_code: bytes


@dataclass(frozen=True)
class Refusal:
    """Why there is no kernel for this machine."""

    reason: str


def find_folder() -> Path:
    """`chestai/kernels` in the user's cache."""
    return find_user_cache("kernels")


@cache
def name_file() -> str:
    """The name of this machine's file: a digest of the CPU and of all that the machine code depends on."""
    from llvmlite import binding as llvm  # here, for it takes 50 MB of memory

    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update(files(__package__).joinpath(source).read_bytes())
    cpu = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    digest.update(json.dumps([*cpu, version("numba"), version("llvmlite")]).encode())
    return f"unfilter-{digest.hexdigest()[:32]}"


def write(path: Path, content: Code | Refusal) -> None:
    """Writes a file, whole or not at all."""
    header: dict[str, object] = {"reason": content.reason} if isinstance(content, Refusal) else {}
    code = b""
    if isinstance(content, Code):
        code = content.machine_code
        header = {"symbol": content.symbol, "gain": content.gain, "sha256": hashlib.sha256(code).hexdigest()}
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + code)
    os.replace(name, path)


def read(path: Path) -> Code | Refusal | None:
    """Reads a file. None if there is none, or one that is damaged, an old refusal or another user's."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            header, code = json.loads(file.readline()), file.read()
        if state.st_uid not in (os.geteuid(), 0):
            return None
        if "reason" in header:
            return Refusal(header["reason"]) if time.time() - state.st_mtime < REFUSAL_SECONDS else None
        if hashlib.sha256(code).hexdigest() != header["sha256"]:
            return None
        return Code(header["symbol"], header["gain"], code)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start_build(path: Path) -> None:
    """Starts a process that writes the file, unless one is at it. Returns at once.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if read(path) is not None:
            return
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "chestai.imaging.fast_png.build", str(path)],
            pass_fds=[lock.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            cwd="/",
        )
    threading.Thread(target=_wait, args=[process, path], name="kernel build", daemon=True).start()


def _wait(process: "subprocess.Popen[bytes]", path: Path) -> None:
    """Lets an ended process go, ends one that hangs, and sees to it that a build that fails is not tried for ever."""
    try:
        process.wait(BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if read(path) is None:
        with suppress(OSError):
            write(path, Refusal(f"its build ended with code {process.returncode}"))
