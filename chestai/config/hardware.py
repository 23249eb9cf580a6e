"""The hardware of this machine, and the file of conf/cluster that suits it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")  # tests replace it


@dataclass(frozen=True)
class Machine:
    """cores: usable by this process. memory_gb: in 10^9 bytes. gpus: NVIDIA devices that torch can use."""

    cores: int
    memory_gb: float
    gpus: int

    def __str__(self) -> str:
        cores, gpus = _count(self.cores, "core"), _count(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{cores}, {self.memory_gb:.0f} GB, {gpus}"


def this_machine() -> Machine:
    """The machine that this process runs on, or the limits of its container if those are smaller.

    torch is imported, which takes seconds, only if there is an NVIDIA device: it knows the effect of the driver and of
    CUDA_VISIBLE_DEVICES.
    """
    cores = min([len(os.sched_getaffinity(0)), *_core_limits()])
    memory = min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits()])
    return Machine(cores, memory / 1e9, _gpus())


def placement(machine: Machine) -> str:
    """The file of conf/cluster for a machine.

    `gpu-large` from 4 GPUs up, `gpu-small` with fewer, `workstation` from 12 cores and 32 GB up, else `laptop`.
    """
    if machine.gpus:
        return "gpu-large" if machine.gpus >= 4 else "gpu-small"
    return "workstation" if machine.cores >= 12 and machine.memory_gb >= 32 else "laptop"


def describe(machine: Machine) -> str:
    """The placement and the hardware, such as `laptop (2 cores, 25 GB, no GPU)`."""
    return f"{placement(machine)} ({machine})"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _gpus() -> int:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not any((ROOT / "dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    # `device_count` alone also counts devices whose driver is too old for this torch.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _core_limits() -> Iterator[int]:
    """Whole cores, at least one, that each control group may use."""
    for folder in _groups("cpu"):
        # Version 1 has quota and period in two files.
        quota = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
        quota = quota or _numbers(folder / "cpu.max")
        if len(quota) == 2 and quota[0] > 0:
            yield max(1, quota[0] // quota[1])


def _memory_limits() -> Iterator[int]:
    """Bytes that each control group may use; without a limit version 1 states more than any machine has."""
    for folder in _groups("memory"):
        yield from _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that limit this process, of versions 1 and 2: its own and all above it.

    A container often sees its own group as the topmost one, whatever path the kernel states.
    """
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # a kernel without control groups
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
    """The numbers in a file; none if it is absent or says "max"."""
    try:
        return tuple(int(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
