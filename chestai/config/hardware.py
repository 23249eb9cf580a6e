"""Detects the hardware that this process may use, and chooses the file of conf/cluster for it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")  # tests replace it


@dataclass(frozen=True)
class Machine:
    """Hardware that this process may use.

    Attributes:
        cores: Number of CPU cores.
        memory_gb: Memory in 10^9 bytes.
        gpus: Number of NVIDIA devices that torch can use.
    """

    cores: int
    memory_gb: float
    gpus: int

    def __str__(self) -> str:
        cores, gpus = _pluralise(self.cores, "core"), _pluralise(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{cores}, {self.memory_gb:.0f} GB, {gpus}"


def detect_machine() -> Machine:
    """Detects the hardware of this machine, or the limits of its container where they are smaller.

    Imports torch, which takes seconds, only if there is an NVIDIA device: only torch knows which devices the driver
    and CUDA_VISIBLE_DEVICES leave usable.
    """
    memory = min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_read_memory_limits()])
    return Machine(count_cores(), memory / 1e9, _count_gpus())


def count_cores() -> int:
    """Counts the CPU cores of this machine, or those of its container where they are fewer."""
    return min([len(os.sched_getaffinity(0)), *_read_core_limits()])


def choose_placement(machine: Machine) -> str:
    """Chooses the file of conf/cluster for a machine.

    Returns:
        `gpu-large` for 4 or more GPUs, `gpu-small` for 1 to 3, `workstation` for 12 or more cores with 32 GB or more,
        otherwise `laptop`.
    """
    if machine.gpus:
        return "gpu-large" if machine.gpus >= 4 else "gpu-small"
    return "workstation" if machine.cores >= 12 and machine.memory_gb >= 32 else "laptop"


def describe_machine(machine: Machine) -> str:
    """Describes placement and hardware in one line, such as `laptop (2 cores, 25 GB, no GPU)`."""
    return f"{choose_placement(machine)} ({machine})"


def _pluralise(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _count_gpus() -> int:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or not any((ROOT / "dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    # `device_count` alone also counts devices whose driver is too old for this torch.
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _read_core_limits() -> Iterator[int]:
    """Yields the whole cores, at least one, that each control group may use.

    `joblib.cpu_count` is no substitute: it reads the topmost group only, and rounds a quota of 1.5 cores up to 2.
    """
    for folder in _find_control_groups("cpu"):
        # Version 1 keeps quota and period in two files.
        quota = _read_numbers(folder / "cpu.cfs_quota_us") + _read_numbers(folder / "cpu.cfs_period_us")
        quota = quota or _read_numbers(folder / "cpu.max")
        if len(quota) == 2 and quota[0] > 0:
            yield max(1, quota[0] // quota[1])


def _read_memory_limits() -> Iterator[int]:
    """Yields the bytes that each control group may use; version 1 states no limit as more than any machine has."""
    for folder in _find_control_groups("memory"):
        yield from _read_numbers(folder / "memory.max") or _read_numbers(folder / "memory.limit_in_bytes")


def _find_control_groups(controller: str) -> Iterator[Path]:
    """Yields the folders of the control groups (versions 1 and 2) that limit this process: its own and its parents.

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


def _read_numbers(file: Path) -> tuple[int, ...]:
    """Reads the numbers in a file; none if the file is absent or says "max"."""
    try:
        return tuple(int(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
