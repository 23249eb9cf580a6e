"""What this machine has, and which placement of conf/cluster is made for it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")  # where proc, sys and dev are


@dataclass(frozen=True)
class Machine:
    """cores: that this process may use. memory_gb: in 10^9 bytes. gpus: NVIDIA devices that torch can use."""

    cores: int
    memory_gb: float
    gpus: int

    def __str__(self) -> str:
        cores, gpus = _several(self.cores, "core"), _several(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{cores}, {self.memory_gb:.0f} GB, {gpus}"


def this_machine() -> Machine:
    """The machine, or where it is smaller the container, that this process runs in.

    Only where there is an NVIDIA device is torch imported, which takes seconds, and asked how many it can use: that
    depends on the driver and on CUDA_VISIBLE_DEVICES.
    """
    cores = min([len(os.sched_getaffinity(0)), *_core_limits()])
    memory = min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits()])
    return Machine(cores, memory / 1e9, _gpus())


def placement(machine: Machine) -> str:
    """The name of the file in conf/cluster for a machine.

    `gpu-large` from 4 GPUs up, `gpu-small` with fewer, `workstation` from 12 cores and 32 GB up, else `laptop`.
    """
    if machine.gpus:
        return "gpu-large" if machine.gpus >= 4 else "gpu-small"
    return "workstation" if machine.cores >= 12 and machine.memory_gb >= 32 else "laptop"


def describe(machine: Machine) -> str:
    """The placement with what was found, such as `laptop (2 cores, 25 GB, no GPU)`."""
    return f"{placement(machine)} ({machine})"


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _gpus() -> int:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not any((ROOT / "dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    # `device_count` alone also counts devices whose driver is too old for this torch.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _core_limits() -> Iterator[int]:
    """Whole cores, one at least, that each control group may use."""
    for folder in _groups("cpu"):
        # Version 1 has them in two files.
        both = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
        both = both or _numbers(folder / "cpu.max")
        if len(both) == 2 and both[0] > 0:
            yield max(1, both[0] // both[1])


def _memory_limits() -> Iterator[int]:
    """Bytes that each control group may use; without a limit version 1 says more than any machine has."""
    for folder in _groups("memory"):
        yield from _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that limit this process: its own and all above it, of version 2 and 1.

    A container often sees its own group as the topmost one, whatever path the kernel tells.
    """
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # a kernel without any
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = ROOT / "sys/fs/cgroup"
        if controllers:  # version 1: a tree for each controller
            top /= controller
            if controller not in controllers.split(","):
                continue
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _numbers(file: Path) -> tuple[int, ...]:
    """The numbers in a file; none where it is absent or says "max"."""
    try:
        return tuple(int(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
