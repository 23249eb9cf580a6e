"""Submits batch jobs so that none is without an owner and no more than `MAX_JOBS` run, whatever fails on the way.

A job is recorded first, in a transaction that counts the others, and submitted then. A recorded job that the job server
does not know is under way to it for `SUBMISSION_S`; after that, or once its submission has failed, it is lost.
"""

import logging
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from chestai.clock import now
from serve.db import records
from serve.db.audit import AuditEvent, append_event
from serve.db.database import serialise_writes
from serve.db.records import FINISHED_STATES, Job
from serve.db.store import Store
from serve.inference.batch_jobs import JobRequest, JobRunner, JobServerUnavailable

log = logging.getLogger("ray.serve")

MAX_JOBS = 4  # at a time: each is a process of half a gigabyte, and more of them are no faster
SUBMISSION_S = 120.0  # longer than `JobRunner.submit` blocks
UNCONFIRMED = "the job server has not confirmed it"  # error of a queued job whose submission failed, or may have


def admit_job(session: Session, job: Job, event: AuditEvent) -> tuple[Job, bool] | None:
    """Records a job, unless it is recorded already.

    Args:
        event: Recorded with a new job.

    Returns:
        The recorded job, and whether the caller has to submit it; None if `MAX_JOBS` others are unfinished.
    """
    serialise_writes(session, "jobs")
    recorded = records.load_job(session, job.job_id)
    if recorded is not None:
        if not is_unconfirmed(recorded):
            return recorded, False
        again = recorded.model_copy(update={"error": None, "updated_at": now()})
        records.record_job(session, again)
        return again, True
    if len(records.load_unfinished_jobs(session)) >= MAX_JOBS:
        return None
    records.record_job(session, job)
    append_event(session, event)
    return job, True


def submit_job(store: Store, runner: JobRunner, job: Job, request: JobRequest) -> None:
    """Submits a recorded job; one that was cancelled or given up meanwhile does not run. Blocks.

    Raises:
        JobServerUnavailable: It may have been submitted nevertheless; the record says that this is not known.
    """
    if _is_finished(store, job.job_id):
        return
    try:
        runner.submit(job.job_id, request)
        if _is_finished(store, job.job_id):
            runner.cancel(job.job_id)
    except JobServerUnavailable:
        store.save_job(job.model_copy(update={"error": UNCONFIRMED, "updated_at": now()}))
        raise


def _is_finished(store: Store, job_id: str) -> bool:
    """Returns whether the record of a job is finished; False while the database is down."""
    try:
        with store.database.read_session() as session:
            recorded = records.load_job(session, job_id)
    except SQLAlchemyError as error:
        log.warning("cannot read the record of job %s (%s)", job_id, type(error).__name__)
        return False
    return recorded is not None and recorded.state in FINISHED_STATES


def is_unconfirmed(job: Job) -> bool:
    """Returns whether a submission of the job has failed, or may have."""
    return job.state == "queued" and job.error == UNCONFIRMED


def is_under_way(job: Job) -> bool:
    """Returns whether a job that the job server does not know may still be under way to it."""
    return job.state == "queued" and job.error is None and now() - job.updated_at < timedelta(seconds=SUBMISSION_S)
