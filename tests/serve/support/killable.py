"""An endpoint in a process of its own, which tests kill and start again on the same port."""

import multiprocessing
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import uvicorn

from tests.serve.support.http_server import find_port
from tests.serve.support.local import local_app
from tests.serve.support.processes import poll

CONTEXT = multiprocessing.get_context("forkserver")  # which imports once what every start needs
CONTEXT.set_forkserver_preload([__name__])


def serve(folder: Path, port: int, overrides: tuple[str, ...]) -> None:
    """Serves until the process is killed."""
    uvicorn.run(local_app(folder, False, *overrides), host="127.0.0.1", port=port, log_level="critical")


class KillableEndpoint:
    """An endpoint over the lake in a folder; what it has written there outlives its processes."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        port = find_port()
        self.url = f"http://localhost:{port}"
        self._arguments = (folder, port, overrides)
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self._process = CONTEXT.Process(target=serve, args=self._arguments)
        self._process.start()
        poll(self._answers)

    def kill(self) -> None:
        """Kills it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def kill_in(self, seconds: float) -> None:
        """Kills it after so many seconds, while the caller goes on elsewhere."""
        time.sleep(seconds)
        self.kill()

    def _answers(self) -> bool:
        assert self._process is not None and self._process.is_alive(), "it ended by itself"
        try:
            return httpx.get(f"{self.url}/health/live").status_code == 200
        except httpx.TransportError:
            return False
