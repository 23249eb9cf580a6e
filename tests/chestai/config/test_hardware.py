"""Tests of hardware detection, container limits and the choice of a placement."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from chestai.config import hardware
from chestai.config.hardware import Machine, choose_placement, describe_machine, detect_machine

CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
GROUPS = "sys/fs/cgroup"
NO_LIMIT = 9223372036854771712  # how version 1 of control groups states "no limit"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system without control groups and devices."""
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def write_files(root: Path, files: dict[str, object]) -> None:
    """Write files by their paths below the root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine(1, 2, 0), "laptop"),
        (Machine(11, 512, 0), "laptop"),
        (Machine(12, 31.9, 0), "laptop"),
        (Machine(12, 32, 0), "workstation"),
        (Machine(192, 2000, 0), "workstation"),
        (Machine(2, 8, 1), "gpu-small"),
        (Machine(128, 1000, 3), "gpu-small"),
        (Machine(8, 32, 4), "gpu-large"),
        (Machine(192, 2000, 8), "gpu-large"),
    ],
)
def test_placement_follows_from_hardware(machine: Machine, name: str) -> None:
    assert choose_placement(machine) == name


def test_describes_machine_in_one_line() -> None:
    assert describe_machine(Machine(2, 23.6, 0)) == "laptop (2 cores, 24 GB, no GPU)"
    assert describe_machine(Machine(1, 512, 1)) == "gpu-small (1 core, 512 GB, 1 GPU)"
    assert describe_machine(Machine(64, 1000.4, 8)) == "gpu-large (64 cores, 1000 GB, 8 GPUs)"


def test_detects_machine_without_limits(root: Path) -> None:
    assert detect_machine() == Machine(CORES, MEMORY / 1e9, 0)


def test_reads_limits_of_cgroups_version_2(root: Path) -> None:
    """A container sees its own group as the topmost one; a pod's own group may have no limit."""
    write_files(root, {"proc/self/cgroup": "0::/", f"{GROUPS}/memory.max": 2 * 10**9})
    assert detect_machine() == Machine(CORES, 2.0, 0)
    write_files(root, {f"{GROUPS}/cpu.max": "150000 100000"})
    assert detect_machine() == Machine(1, 2.0, 0)
    write_files(root, {"proc/self/cgroup": "0::/pod/own", f"{GROUPS}/pod/own/memory.max": "max"})
    write_files(root, {f"{GROUPS}/pod/memory.max": 10**9, f"{GROUPS}/pod/own/cpu.max": "max 100000"})
    assert detect_machine() == Machine(1, 1.0, 0), "the smallest limit of the group and its parents"


def test_reads_limits_of_cgroups_version_1(root: Path) -> None:
    write_files(root, {"proc/self/cgroup": "4:memory:/a\n2:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/"})
    write_files(root, {f"{GROUPS}/memory/memory.limit_in_bytes": NO_LIMIT})
    write_files(root, {f"{GROUPS}/cpu/a/b/cpu.cfs_quota_us": -1})
    write_files(root, {f"{GROUPS}/cpu/a/b/cpu.cfs_period_us": 100000})
    assert detect_machine() == Machine(CORES, MEMORY / 1e9, 0)
    write_files(root, {f"{GROUPS}/memory/a/memory.limit_in_bytes": 3 * 10**9})
    write_files(root, {f"{GROUPS}/cpu/a/b/cpu.cfs_quota_us": 50000})
    assert detect_machine() == Machine(1, 3.0, 0), "half a core counts as one"


def test_ignores_limits_above_the_machine(root: Path) -> None:
    write_files(root, {"proc/self/cgroup": "0::/../../elsewhere", f"{GROUPS}/memory.max": 10**18})
    write_files(root, {f"{GROUPS}/cpu.max": "99900000 100000"})
    assert detect_machine() == Machine(CORES, MEMORY / 1e9, 0)


def replace_torch(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Replace torch by one that can use this many devices."""
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        is_available=lambda: count > 0, device_count=lambda: count or 7
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.parametrize(("usable", "gpus"), [(2, 2), (1, 1), (0, 0)])
def test_torch_counts_gpus_when_there_is_a_device(
    root: Path, monkeypatch: pytest.MonkeyPatch, usable: int, gpus: int
) -> None:
    """A driver may be too old for this torch, whose `device_count` counts the device nevertheless."""
    replace_torch(monkeypatch, usable)
    write_files(root, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": ""})
    assert detect_machine().gpus == gpus


@pytest.mark.parametrize("visible", ["", "-1", None])
def test_torch_is_not_imported_without_visible_device(
    root: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes the import fail
    write_files(root, {"dev/nvidiactl": ""})
    if visible is not None:
        write_files(root, {"dev/nvidia0": ""})
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert detect_machine().gpus == 0


@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no NVIDIA device")
def test_real_gpu_follows_visible_devices() -> None:
    def count_gpus(visible: str) -> int:
        code = "from chestai.config.hardware import detect_machine; print(detect_machine().gpus)"
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        return int(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)

    assert (count_gpus("0"), count_gpus(""), count_gpus("-1")) == (1, 0, 0)
