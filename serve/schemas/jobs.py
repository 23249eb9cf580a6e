"""The JSON of batch jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chestai import RESEARCH_USE
from chestai.config.serving import Glob
from serve.db.records import JobState
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples

LAKE = "lake"  # as prefix of a request: the newest snapshot
JOB_ID_EXAMPLE = "5d0f5f0e-4d0b-4a57-9f0c-6f6a5c1f3b10"
QUEUED_EXAMPLE: dict[str, Any] = {
    "job_id": JOB_ID_EXAMPLE,
    "state": "queued",
    "done": 0,
    "total": None,
    "result": None,
    "error": None,
    "created_at": examples.TIME,
    "updated_at": examples.TIME,
}
RESULT_EXAMPLE = {
    "csv": f"s3://xray/lake/jobs/{JOB_ID_EXAMPLE}/scores.csv",
    "table": "s3://xray/lake/scores/3",
}


class BatchJobRequest(BaseModel):
    """The images to score.

    prefix: `lake` for its newest snapshot; or a folder below one of the allowed prefixes, as an absolute path or
    `s3://bucket/prefix`. match: a glob for the path below the folder, or for the image_id. split: of the lake's images.
    model: a version; null for the one that serves now. heatmaps, embeddings: whether to store these, too.
    """

    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[str, Field(min_length=1, max_length=1024, examples=[LAKE])]
    match: Glob | None = None
    split: Literal["train", "val", "test"] | None = None
    model: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    heatmaps: bool = False
    embeddings: bool = False


class JobResponse(Answer):
    """The state of a job: `done` of `total` images; total is null until it is known.

    result: the outputs of a finished job. `csv` has a row for each image, most urgent first; `table` is the Delta table
    of everything that this model version has scored. error: why the job failed, in one line.
    """

    model_config = with_examples(
        QUEUED_EXAMPLE,
        {**QUEUED_EXAMPLE, "state": "done", "done": 1197, "total": 1197, "result": RESULT_EXAMPLE},
        {**QUEUED_EXAMPLE, "state": "cancelled", "done": 320, "total": 1197},
    )

    job_id: str
    state: JobState
    done: int
    total: int | None = None
    result: dict[str, str] | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime
    notice: str = RESEARCH_USE


class JobsResponse(Answer):
    """Jobs, newest first."""

    model_config = with_examples({"jobs": [{**QUEUED_EXAMPLE, "notice": RESEARCH_USE}]})

    jobs: list[JobResponse]
    notice: str = RESEARCH_USE
