"""Batch jobs of an endpoint on one machine: each is a child process that runs `pipelines.score`. Needs no Ray."""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from chestai.config.schema import Config
from chestai.lake.lake import Lake
from serve.inference.batch_jobs import JobProgress, JobRequest, JobServerUnavailable
from serve.inference.job_run import combine_states, job_command, read_status

ROOT = Path(__file__).resolve().parents[2]
NICENESS = 10  # requests to the endpoint come first
STOP_S = 20.0  # for a run to commit what it has


class LocalJobs:
    """Implements `serve.inference.batch_jobs.JobRunner`. Jobs end with the endpoint.

    The files of a job are in the lake below `jobs/<job_id>/`: `status.json` and `scores.csv`, which the run writes.
    What it prints is in the log of the endpoint.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._lake, self._lock = config, Lake(config.lake), threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[str] = set()

    def submit(self, job_id: str, request: JobRequest) -> None:
        with self._lock:
            if job_id in self._processes:
                return
            command = job_command(self._config, job_id, request, cluster=None)
            try:
                process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                raise JobServerUnavailable(f"no process can be started: {error.strerror}") from error
            with suppress(OSError):
                os.setpriority(os.PRIO_PGRP, process.pid, NICENESS)
            self._processes[job_id] = process

    def progress(self, job_id: str) -> JobProgress:
        with self._lock:
            process, stopped = self._processes.get(job_id), job_id in self._stopped
        try:
            run = read_status(self._lake, job_id)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise JobServerUnavailable(f"the state of the job cannot be read: {type(error).__name__}") from error
        if process is None:
            return combine_states(None, None, run, "")
        exit_code = process.poll()
        if exit_code is None:
            return combine_states("running", None, run, "")
        return combine_states("stopped" if stopped else "ended", exit_code, run, "the endpoint's log")

    def cancel(self, job_id: str) -> None:
        with self._lock:
            process = self._processes.get(job_id)
            if process is None or process.poll() is not None:
                return
            self._stopped.add(job_id)
        _send(process, signal.SIGTERM)

    def close(self) -> None:
        """Stops all jobs, and kills those that do not end in time."""
        with self._lock:
            running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            _send(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
                process.wait()


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to a run and all its processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
