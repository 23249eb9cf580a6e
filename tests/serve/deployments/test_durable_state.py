"""An endpoint in a container refuses to keep its only records where they are lost with the container."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chestai.config import load as conf
from chestai.errors import UserError
from serve.deployments import durable_state
from serve.deployments.durable_state import KUBERNETES, check_durable, find_mount
from tests.support.paths import ROOT

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 0:55 / / rw,relatime master:9 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c
30 27 0:27 / /dev/shm rw,relatime - tmpfs shm rw
31 27 8:1 /var/lib/docker/volumes/state/_data /state rw,relatime - ext4 /dev/sda1 rw
32 27 8:1 /var/lib/kubelet/pods/9d/volumes/kubernetes.io~empty-dir/cache /cache rw - ext4 /dev/sda1 rw
33 27 8:1 /var/lib/kubelet/pods/9d/volumes/kubernetes.io~csi/pvc-1/mount /a\040b rw - xfs /dev/sdb rw
34 27 0:61 / /over rw - ext4 /dev/sdc rw
35 27 0:62 / /over rw - tmpfs tmpfs rw
36 27 0:63 / /podman rw - fuse.fuse-overlayfs fuse-overlayfs rw
37 27 0:64 / /nfs rw - nfs4 server:/state rw
""".strip()


@pytest.mark.parametrize(
    ("path", "temporary"),
    [
        ("/home/chestai/state", True),
        ("/dev/shm/x", True),
        ("/state", False),
        ("/state/chestai/backlog", False),
        ("/stateless", True),
        ("/cache/x", True),
        ("/a b/x", False),
        ("/over/x", True),
        ("/podman/x", True),
        ("/nfs/x", False),
    ],
)
def test_knows_which_mounts_end_with_the_container(path: str, temporary: bool) -> None:
    assert find_mount(Path(path), MOUNTS).is_temporary == temporary


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in a real file system in memory."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or find_mount(shared, durable_state.MOUNTS.read_text()).kind != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs")
    with TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def test_endpoint_in_a_container_starts_only_with_durable_state(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = conf.load(["cluster=laptop", f"lake={memory}/lake"])
    monkeypatch.setattr(durable_state, "CONTAINER_FILES", ())
    monkeypatch.delenv(KUBERNETES, raising=False)
    check_durable(temporary)
    monkeypatch.setenv(KUBERNETES, "10.0.0.1")
    with pytest.raises(UserError, match=r"^/dev/shm/.*/state keeps records .* \(tmpfs at /dev/shm\): mount a volume"):
        check_durable(temporary)
    check_durable(conf.load(["cluster=laptop", f"lake={memory}/lake", "state.ephemeral=true"]))
    monkeypatch.setattr(durable_state, "MOUNTS", tmp_path / "mounts")
    (tmp_path / "mounts").write_text(
        f"27 1 0:55 / / rw - overlay overlay rw\n31 27 8:1 /v {memory} rw - ext4 /dev/sda rw"
    )
    check_durable(temporary)
    with pytest.raises(UserError, match=r"elsewhere keeps records .* \(overlay at /\)"):
        check_durable(conf.load(["cluster=laptop", f"lake={memory}/lake", "state.url=sqlite:////elsewhere/state.db"]))


def test_outbox_of_a_remote_lake_is_in_the_state_folder_of_the_user(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KUBERNETES, "10.0.0.1")
    monkeypatch.setenv("XDG_STATE_HOME", str(memory))
    config = conf.load(["cluster=laptop", "lake=s3://bucket/lake", "state.url=postgresql://chestai@db/chestai"])
    with pytest.raises(UserError, match=f"^{memory}/chestai keeps records"):
        check_durable(config)


def test_command_says_so_in_one_line_and_starts_no_ray(memory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-m", "serve", f"lake={memory}/lake", "serve.port=0"],
        cwd=ROOT, env={**environment, KUBERNETES: "10.0.0.1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"serve: {memory}/lake/state keeps records that exist nowhere else")
