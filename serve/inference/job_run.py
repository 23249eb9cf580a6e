"""The run of a batch job, wherever it runs: its command line, the state that it writes, and what both say together."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from chestai.config.load import quote
from chestai.config.schema import Config
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from serve.inference.batch_jobs import JobProgress, JobRequest

LOST_JOB = "lost with its cluster; submit it again: only missing images are scored"

ProcessState = Literal["pending", "running", "stopped", "ended"]


def job_command(config: Config, job_id: str, request: JobRequest, cluster: str | None) -> list[str]:
    """Returns the command line of the run, with all settings of this endpoint that matter to it.

    Args:
        cluster: `host:port` of the Ray that it uses; None: what its environment says, or one of its own.
    """
    lake = Lake(config.lake)
    score = {
        "model": str(request.model),
        "corpus": request.corpus,
        "match": request.match,
        "split": request.split,
        "prefixes": config.serve.prefixes,
        "heatmaps": request.heatmaps,
        "embeddings": request.embeddings,
        "gate": config.serve.gate,
        "csv": lake.uri("jobs", job_id, "scores.csv"),
        "status": lake.uri("jobs", job_id, "status.json"),
        "batch_size": config.score.batch_size,
        "commit_seconds": config.score.commit_seconds,
        "actors": config.score.actors,
    }
    settings = {
        "lake": lake.uri(),
        "tracking": config.tracking.model_dump(),
        "runtime": config.runtime.model_dump(),
        "score": score,
        "cluster": {"address": cluster},
    }
    overrides = [f"{key}={_to_override(value)}" for key, value in _flatten(settings)]
    return [sys.executable, "-m", "pipelines.score", "cluster=laptop", *overrides]


def read_status(lake: Lake, job_id: str) -> Mapping[str, Any] | None:
    """Reads the run's `status.json` (`pipelines.scoring.status`); None before the run has written it.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: It cannot be read.
    """
    try:
        return dict(json.loads(read_bytes(lake.uri("jobs", job_id, "status.json"))))
    except FileNotFoundError:
        return None


def combine_states(
    state: ProcessState | None, exit_code: int | None, run: Mapping[str, Any] | None, log: str
) -> JobProgress:
    """Combines what is known of the process with what the run itself wrote.

    Args:
        state: None if the process is unknown.
        exit_code: Of the run, once it has ended.
        run: As from `read_status`.
        log: Where a crash is explained.
    """
    done, total = (run["done"], run["total"]) if run else (0, None)
    if run and run["state"] == "done" and state not in ("pending", "running"):
        result = {kind: uri for kind, uri in run["result"].items() if uri is not None}
        return JobProgress("done", done, total, result)
    match state:
        case "pending":
            return JobProgress("queued", done, total)
        case "running":
            return JobProgress("running", done, total)
        case "stopped":
            return JobProgress("cancelled", done, total)
        case None:
            return JobProgress("failed", done, total, error=LOST_JOB, known=False)
    detail = run["detail"] if run and run["state"] == "failed" else None
    crash = f"it crashed (exit status {exit_code}); {log} may show why"
    return JobProgress("failed", done, total, error=detail or crash)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and their values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _to_override(value: object) -> str:
    """Formats a value so that `chestai.config.load` reads it back unchanged, whatever characters a text has."""
    if isinstance(value, tuple):
        return f"[{','.join(_to_override(part) for part in value)}]"
    return quote(value) if isinstance(value, str) else json.dumps(value)
