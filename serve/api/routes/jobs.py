"""Batch jobs: a corpus is scored in the background, whatever becomes of the request."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Literal, TypeVar
from uuid import NAMESPACE_URL, uuid5

from fastapi import APIRouter, Header, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from chestai.clock import now
from serve.api.openapi import CANCELLED, DONE, NO_JSON, QUEUED
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.auth.permissions import Principal, owns
from serve.db import records
from serve.db.audit import AuditEvent
from serve.db.records import FINISHED_STATES, Job, new_id
from serve.inference.batch_jobs import JobRequest, JobRunner, JobServerUnavailable
from serve.problems import ApiError, documented
from serve.schemas import JobResponse
from serve.storage.allowed_prefixes import resolve_allowed

log = logging.getLogger("ray.serve")

router = APIRouter(tags=["jobs"])

T = TypeVar("T")

LAKE = "lake"
MOST = 4  # jobs at a time: each is a process of half a gigabyte, and more of them are no faster
ASKERS = ThreadPoolExecutor(4, "jobs")  # a job server that hangs must not take the threads of images
DISABLED = {"jobs_disabled": "serve.jobs=false, or the Ray that the endpoint runs on has no job server"}
UNKNOWN = documented(
    404,
    unknown_job="there is none, or it is somebody else's",
    not_found="the name holds a slash, or is none",
    **DISABLED,
)
BUSY = documented(
    503,
    jobs_unavailable="the job server does not answer; when to try again is in `Retry-After`",
    overloaded="nothing answers in time",
    state_unavailable="the database does not answer",
    state_full="the database is away, and no more can be kept for it",
)
NO_ID = documented(422, invalid_request="the ID is none that a job has")
JobId = Annotated[
    str,
    Path(pattern="^[0-9a-f-]{36}$", description="Of the answer.", examples=["5d0f5f0e-4d0b-4a57-9f0c-6f6a5c1f3b10"]),
]


class BatchJobRequest(BaseModel):
    """What to score.

    prefix: `lake`, its newest snapshot; or a folder, as an absolute path or `s3://bucket/prefix`, below one of those
    that the endpoint allows. match: a glob of the path below it, or of the image_id. split: of the lake's images.
    model: a version, null: the one that answers now. heatmaps, embeddings: also keep these.
    """

    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[str, Field(min_length=1, max_length=1024, examples=["lake"])]
    match: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f]*$")] | None = None
    split: Literal["train", "val", "test"] | None = None
    model: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    heatmaps: bool = False
    embeddings: bool = False


@router.post(
    "/batch_infer",
    summary="Score a corpus in the background",
    status_code=202,
    responses={
        202: {
            "content": QUEUED,
            "headers": {"Location": {"required": True, "description": "Of the job.", "schema": {"type": "string"}}},
        },
        **NO_JSON,
        **documented(
            403,
            forbidden="the role or the scopes do not allow it",
            prefix_not_allowed="the prefix is not below one that serve.prefixes names",
        ),
        **documented(404, **DISABLED),
        **documented(422, invalid_request="such as a split of a folder"),
        **documented(429, too_many_jobs=f"{MOST} have not ended yet; when to try again is in `Retry-After`"),
        **BUSY,
    },
)
async def batch_infer(
    wanted: BatchJobRequest,
    services: ServicesDep,
    who: CurrentPrincipal,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="Of one's own: the same again means the same job."),
    ] = None,
) -> JobResponse:
    """Score a corpus by a job that outlives the request; what is scored already is not scored again."""
    runner = _runner(services)
    job_id = new_id()
    if idempotency_key is not None:
        job_id = str(uuid5(NAMESPACE_URL, json.dumps(["chestai", who.name, idempotency_key])))
    response.headers["Location"] = f"/jobs/{job_id}"
    async with services.in_time():
        if idempotency_key is not None:
            known = await services.look(lambda session: records.load_job(session, job_id))
            if known is not None:
                return _answer(known)
        work = await _work(services, wanted)
        await _check_room(services, runner)
        await _asked(lambda: runner.submit(job_id, work))
    job = Job(kind="score", owner=who.name, job_id=job_id)
    told = {"model_version": work.model, "corpus": LAKE if work.corpus == LAKE else "prefix", "split": work.split}
    event = AuditEvent(actor=who.name, action="job.submit", object=job_id, detail=told)
    await services.keep(lambda: services.store.save_job(job, event))
    return _answer(job)


@router.get(
    "/jobs/{job_id}",
    summary="How a job stands",
    responses={200: {"content": DONE}, **UNKNOWN, **NO_ID, **BUSY},
)
async def job(job_id: JobId, services: ServicesDep, who: CurrentPrincipal) -> JobResponse:
    """How a job of one's own stands; admins see everybody's."""
    runner = _runner(services)
    async with services.in_time():
        before = await _own(services, who, job_id)
        after = await _fresh(runner, before)
    if after != before:
        await services.keep(lambda: services.store.save_job(after))
    return _answer(after)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    responses={
        200: {"content": CANCELLED},
        **UNKNOWN,
        **documented(409, job_ended="it is done, or has failed"),
        **NO_ID,
        **BUSY,
    },
)
async def cancel(job_id: JobId, services: ServicesDep, who: CurrentPrincipal) -> JobResponse:
    """End a job; what it has scored stays. Cancelling it again changes nothing."""
    runner = _runner(services)
    async with services.in_time():
        job = await _own(services, who, job_id)
        if job.state == "cancelled":
            return _answer(job)
        job = await _fresh(runner, job)
        if job.state in ("done", "failed"):
            raise ApiError(409, "job_ended", f"the job has ended: {job.state}")
        await _asked(lambda: runner.cancel(job_id))
    ended = job.model_copy(update={"state": "cancelled", "updated_at": now()})
    event = AuditEvent(actor=who.name, action="job.cancel", object=job_id)
    await services.keep(lambda: services.store.save_job(ended, event))
    return _answer(ended)


def _runner(services: Services) -> JobRunner:
    if services.jobs is None:
        raise ApiError(404, "jobs_disabled", f"this endpoint does no jobs: {DISABLED['jobs_disabled']}")
    return services.jobs


async def _work(services: Services, wanted: BatchJobRequest) -> JobRequest:
    """What the job is to do. Raises `Refused` where it may not, or where no version answers."""
    corpus = wanted.prefix
    if corpus != LAKE:
        corpus = await asyncio.to_thread(resolve_allowed, corpus, services.config.serve.prefixes)
        if wanted.split is not None:
            raise ApiError(422, "invalid_request", "split is of the lake's images: leave it out with another prefix")
    model = (await services.scorer.model_info()).version if wanted.model is None else wanted.model
    return JobRequest(corpus, model, wanted.match, wanted.split, wanted.heatmaps, wanted.embeddings)


async def _check_room(services: Services, runner: JobRunner) -> None:
    """Raises `Refused` where there are too many jobs; of those that nobody asked for since, it is not known yet."""
    waiting = await services.look(records.load_unfinished_jobs)
    if len(waiting) < MOST:
        return
    states = await asyncio.gather(*(_fresh(runner, one) for one in waiting))
    for one in states:
        if one.state in FINISHED_STATES:
            await services.keep(partial(services.store.save_job, one))
    if sum(one.state not in FINISHED_STATES for one in states) >= MOST:
        raise ApiError(429, "too_many_jobs", f"{MOST} jobs have not ended yet: try again later")


async def _own(services: Services, who: Principal, job_id: str) -> Job:
    """A job that is the principal's to see; of others' it is not told that they are there."""
    found = await services.look(lambda session: records.load_job(session, job_id))
    if found is None or not owns(who, found.owner):
        raise ApiError(404, "unknown_job", f"no job {job_id}")
    return found


async def _fresh(runner: JobRunner, job: Job) -> Job:
    """How the job stands now; what has ended stays as it is."""
    if job.state in FINISHED_STATES:
        return job
    standing = await _asked(lambda: runner.progress(job.job_id))
    result = None if standing.result is None else json.dumps(dict(standing.result))
    told = {"state": standing.state, "done": standing.done, "total": standing.total, "error": standing.error}
    fresh = job.model_copy(update={**told, "result": result})
    return job if fresh == job else fresh.model_copy(update={"updated_at": now()})


async def _asked(call: Callable[[], T]) -> T:
    """What the runner answers, without holding up anybody else. Raises `Refused` where it does not."""
    try:
        return await asyncio.get_running_loop().run_in_executor(ASKERS, call)
    except JobServerUnavailable as error:
        log.warning("the job server does not answer: %s", error)
        raise ApiError(503, "jobs_unavailable", "the job server does not answer: try again later") from error


def _answer(job: Job) -> JobResponse:
    told = job.model_dump(exclude={"kind", "owner", "result"})
    return JobResponse(**told, result=None if job.result is None else json.loads(job.result))
