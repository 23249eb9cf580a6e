"""Batch jobs: a corpus is scored in the background, independent of the request."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Annotated, TypeVar
from uuid import NAMESPACE_URL, uuid5

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from chestai.clock import now
from serve.api.openapi import FORBIDDEN_ERRORS, JSON_BODY_RESPONSES, PARAMETER_ERRORS, STATE_RESPONSES, Refresh
from serve.api.security import CurrentPrincipal
from serve.api.services import Services, ServicesDep
from serve.auth.permissions import Principal, owns
from serve.db import records
from serve.db.audit import AuditEvent
from serve.db.records import FINISHED_STATES, Job, new_id
from serve.inference.batch_jobs import JobRequest, JobRunner, JobServerUnavailable
from serve.inference.job_submission import MAX_JOBS, admit_job, is_unconfirmed, is_under_way
from serve.inference.job_submission import submit_job as submit_recorded_job
from serve.problems import ApiError, error_responses
from serve.schemas.jobs import JOB_ID_EXAMPLE, LAKE, BatchJobRequest, JobResponse, JobsResponse
from serve.storage.allowed_prefixes import resolve_allowed

log = logging.getLogger("ray.serve")

router = APIRouter(tags=["jobs"])

T = TypeVar("T")

JOB_EXECUTOR = ThreadPoolExecutor(4, "jobs")  # a job server that hangs must not take the threads of images
SUBMISSION_WAIT_S = 10.0  # that a response waits for the job server to take a recorded job
JOBS_DISABLED_ERRORS = {"jobs_disabled": "serve.jobs=false, or the Ray of the endpoint has no job server"}
UNKNOWN_JOB_RESPONSES = error_responses(
    404,
    unknown_job="there is none, or it belongs to somebody else",
    not_found="the name is empty or has a slash",
    **JOBS_DISABLED_ERRORS,
)
UNAVAILABLE_RESPONSES = error_responses(
    503,
    jobs_unavailable="the job server does not respond; `Retry-After` says when to try again",
    overloaded="no response in time",
    state_unavailable="the database does not respond",
    state_full="the database is down, and nothing more can be recorded for it",
)
JOB_ID_RESPONSES = error_responses(422, invalid_request="not the ID of a job")
JobId = Annotated[
    str, Path(pattern="^[0-9a-f-]{36}$", description="From `POST /batch_infer`.", examples=[JOB_ID_EXAMPLE])
]


@router.post(
    "/batch_infer",
    summary="Score a corpus in the background",
    status_code=202,
    responses={
        202: {
            "headers": {"Location": {"required": True, "description": "Of the job.", "schema": {"type": "string"}}},
        },
        **JSON_BODY_RESPONSES,
        **error_responses(
            403,
            **FORBIDDEN_ERRORS,
            prefix_not_allowed="the prefix is below none of serve.prefixes",
        ),
        **error_responses(404, **JOBS_DISABLED_ERRORS),
        **error_responses(422, invalid_request="such as a split of a folder"),
        **error_responses(429, too_many_jobs=f"{MAX_JOBS} jobs are running; `Retry-After` says when to try again"),
        **UNAVAILABLE_RESPONSES,
    },
)
async def submit_job(
    request: BatchJobRequest,
    services: ServicesDep,
    principal: CurrentPrincipal,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="Chosen by the client: the same key names the same job."),
    ] = None,
) -> JobResponse:
    """Scores a corpus in a job that outlives the request. Images that were scored before are not scored again."""
    runner = _get_runner(services)
    job_id = new_id()
    if idempotency_key is not None:
        job_id = str(uuid5(NAMESPACE_URL, json.dumps(["chestai", principal.name, idempotency_key])))
    response.headers["Location"] = f"/jobs/{job_id}"
    async with services.admission.deadline():
        if idempotency_key is not None:
            existing = await services.state.read(records.load_job, job_id)
            if existing is not None and not is_unconfirmed(existing):
                return _to_response(existing)
        job_request = await _to_job_request(services, request)
        job, is_new = await _admit(
            services, runner, Job(kind="score", owner=principal.name, job_id=job_id), job_request
        )
        if is_new:
            submission = partial(submit_recorded_job, services.state.store, runner, job, job_request)
            task = asyncio.shield(_call(submission, f"GET /jobs/{job_id} says later whether the job runs"))
            with suppress(TimeoutError):  # it goes on, and the job is queued
                await asyncio.wait_for(task, SUBMISSION_WAIT_S)
    return _to_response(job)


@router.get(
    "/jobs",
    summary="The newest jobs",
    responses={**error_responses(422, **PARAMETER_ERRORS), **STATE_RESPONSES},
)
async def list_jobs(
    services: ServicesDep,
    principal: CurrentPrincipal,
    limit: Annotated[int, Query(ge=1, le=500, description="Jobs at most.")] = 50,
    refresh: Refresh = False,
) -> JobsResponse:
    """One's own jobs, newest first, as they were last asked for; admins see every job."""
    owner = None if principal.role == "admin" else principal.name
    jobs = await services.state.read(records.load_jobs, owner, limit)
    return JobsResponse(jobs=[_to_response(job) for job in jobs])


@router.get(
    "/jobs/{job_id}",
    summary="The state of a job",
    responses={**UNKNOWN_JOB_RESPONSES, **JOB_ID_RESPONSES, **UNAVAILABLE_RESPONSES},
)
async def read_job(
    job_id: JobId, services: ServicesDep, principal: CurrentPrincipal, refresh: Refresh = False
) -> JobResponse:
    """The state of one's own job; admins see every job."""
    runner = _get_runner(services)
    async with services.admission.deadline():
        before = await _load_own_job(services, principal, job_id)
        after = await _refresh(runner, before)
    if after != before:
        await services.state.save(services.state.store.save_job, after)
    return _to_response(after)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    responses={
        **UNKNOWN_JOB_RESPONSES,
        **error_responses(409, job_ended="it is done, or has failed"),
        **JOB_ID_RESPONSES,
        **UNAVAILABLE_RESPONSES,
    },
)
async def cancel_job(job_id: JobId, services: ServicesDep, principal: CurrentPrincipal) -> JobResponse:
    """Stops a job and keeps the images it has scored. Cancelling it again changes nothing."""
    runner = _get_runner(services)
    async with services.admission.deadline():
        job = await _load_own_job(services, principal, job_id)
        if job.state == "cancelled":
            return _to_response(job)
        job = await _refresh(runner, job)
        if job.state in ("done", "failed"):
            raise ApiError(409, "job_ended", f"the job has ended: {job.state}")
        await _call(lambda: runner.cancel(job_id))
    cancelled = job.model_copy(update={"state": "cancelled", "updated_at": now()})
    event = AuditEvent(actor=principal.name, action="job.cancel", object=job_id)
    await services.state.save(services.state.store.save_job, cancelled, event)
    return _to_response(cancelled)


def _get_runner(services: Services) -> JobRunner:
    if services.jobs is None:
        raise ApiError(404, "jobs_disabled", f"this endpoint runs no jobs: {JOBS_DISABLED_ERRORS['jobs_disabled']}")
    return services.jobs


async def _to_job_request(services: Services, request: BatchJobRequest) -> JobRequest:
    """Checks the prefix and fills in the model version. Raises ApiError if the prefix is not allowed."""
    corpus = request.prefix
    if corpus != LAKE:
        corpus = await asyncio.to_thread(resolve_allowed, corpus, services.config.serve.prefixes)
        if request.split is not None:
            detail = "split selects images of the lake: leave it out with another prefix"
            raise ApiError(422, "invalid_request", detail)
    version = request.model
    if version is None:
        version = (await services.model.scorer.model_info()).version
    return JobRequest(corpus, version, request.match, request.split, request.heatmaps, request.embeddings)


async def _admit(services: Services, runner: JobRunner, job: Job, request: JobRequest) -> tuple[Job, bool]:
    """Records a job; returns the recorded one, and whether it has to be submitted.

    Raises:
        ApiError: 429, `MAX_JOBS` are running, even after all records were brought up to date.
    """
    corpus = LAKE if request.corpus == LAKE else "prefix"
    detail = {"model_version": request.model, "corpus": corpus, "split": request.split}
    event = AuditEvent(actor=job.owner, action="job.submit", object=job.job_id, detail=detail)
    admit = partial(admit_job, job=job, event=event)
    admitted = await services.state.change(admit)
    if admitted is None:
        await _refresh_all(services, runner)
        admitted = await services.state.change(admit)
    if admitted is None:
        raise ApiError(429, "too_many_jobs", f"{MAX_JOBS} jobs are running: try again later")
    return admitted


async def _refresh_all(services: Services, runner: JobRunner) -> None:
    """Records the current states of all jobs whose recorded state may be out of date."""
    recorded = await services.state.read(records.load_unfinished_jobs)
    current = await asyncio.gather(*(_refresh(runner, job) for job in recorded))
    for before, after in zip(recorded, current, strict=True):
        if after != before:
            await services.state.save(services.state.store.save_job, after)


async def _load_own_job(services: Services, principal: Principal, job_id: str) -> Job:
    """Loads a job that the principal may see; a job of others gets the same 404 as an unknown one."""
    job = await services.state.read(records.load_job, job_id)
    if job is None or not owns(principal, job.owner):
        raise ApiError(404, "unknown_job", f"no job {job_id}")
    return job


async def _refresh(runner: JobRunner, job: Job) -> Job:
    """Returns the job in its current state, which no longer changes once it is finished."""
    if job.state in FINISHED_STATES:
        return job
    progress = await _call(lambda: runner.progress(job.job_id))
    if not progress.known and is_under_way(job):
        return job
    current = job.model_copy(
        update={
            "state": progress.state,
            "done": progress.done,
            "total": progress.total,
            "error": progress.error,
            "result": None if progress.result is None else json.dumps(dict(progress.result)),
        }
    )
    return job if current == job else current.model_copy(update={"updated_at": now()})


async def _call(call: Callable[[], T], advice: str = "try again later") -> T:
    """Calls the job runner in a thread. Raises ApiError (503) with the advice if the job server does not respond."""
    try:
        return await asyncio.get_running_loop().run_in_executor(JOB_EXECUTOR, call)
    except JobServerUnavailable as error:
        log.warning("the job server does not respond: %s", error)
        raise ApiError(503, "jobs_unavailable", f"the job server does not respond: {advice}") from error


def _to_response(job: Job) -> JobResponse:
    fields = job.model_dump(exclude={"kind", "owner", "result"})
    return JobResponse(**fields, result=None if job.result is None else json.loads(job.result))
