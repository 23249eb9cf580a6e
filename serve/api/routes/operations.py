"""For operators: health checks, metrics, drift, and the check of the audit chain."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from serve.api.openapi import (
    MONITOR_ERRORS,
    OVERLOADED_RESPONSES,
    PARAMETER_ERRORS,
    STATE_ERRORS,
    STATE_RESPONSES,
    Refresh,
)
from serve.api.services import Services, ServicesDep
from serve.api.state import DATABASE_ERRORS, database_unavailable
from serve.db.audit import verify_chain
from serve.db.database import Database
from serve.gateway.db.backlog import Backlog, load_backlogs
from serve.monitoring.backlog import render_backlogs
from serve.problems import ApiError, error_responses
from serve.schemas.inference import ModelInfo
from serve.schemas.operations import (
    AuditCheck,
    DriftReport,
    DriftWindow,
    FeatureDrift,
    Health,
    HealthSummary,
)

router = APIRouter(tags=["operations"])

T = TypeVar("T")

HEALTH_TIMEOUT_S = 3.0
# A database that hangs must not take the threads of other requests, nor a slow count of deliveries that of health.
HEALTH_EXECUTOR, BACKLOG_EXECUTOR = ThreadPoolExecutor(1, "health"), ThreadPoolExecutor(1, "backlog")
AUDIT_EXECUTOR = ThreadPoolExecutor(1, "audit")  # it reads every row: one check at a time, in no thread of others

METRICS_EXAMPLE = """# HELP chestai_images_total Images in requests.
# TYPE chestai_images_total counter
chestai_images_total{outcome="scored",reason=""} 990.0
chestai_images_total{outcome="not_scored",reason="truncated"} 10.0
"""
METRICS: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}, "example": METRICS_EXAMPLE}}


@router.get("/health", summary="Summary of the health")
async def summarise_health(services: ServicesDep) -> HealthSummary:
    """Whether the model and the database respond, in one answer; always 200."""
    model, database = await asyncio.gather(_ask_model(services), _ask_database(services.state.store.database))
    return HealthSummary(status="ok" if model and database else "degraded", model=model, database=database)


@router.get("/health/live", summary="Check that the process responds")
async def check_live() -> Health:
    """Whether this process responds, whatever the state of the model."""
    return Health()


@router.get("/health/ready", summary="Check that a model responds", responses=OVERLOADED_RESPONSES)
async def check_ready(services: ServicesDep) -> Health:
    """Whether a model responds, and which version."""
    async with services.admission.deadline():
        return Health(model=await services.model.scorer.model_info())


@router.get(
    "/drift_report",
    summary="Drift of images and predictions",
    responses={
        **error_responses(422, **PARAMETER_ERRORS),
        **error_responses(503, overloaded="no model responds in time", **MONITOR_ERRORS, **STATE_ERRORS),
    },
)
async def report_drift(services: ServicesDep, refresh: Refresh = False) -> DriftReport:
    """How far the latest images and predictions have moved from the training data of the served model."""
    async with services.admission.deadline():
        model = await services.model.scorer.model_info()
        await services.reporter.flush()
        drift = await services.monitor.drift(model.version)
    return DriftReport(
        model=model,
        verdict=drift.report.verdict,
        reason=drift.reason,
        window=DriftWindow(images=drift.images, since=drift.since),
        features=[FeatureDrift(**vars(feature)) for feature in drift.report.features],
        reference_images=drift.reference_images,
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": METRICS, "description": "Prometheus' text format, version 0.0.4."},
        **error_responses(503, **MONITOR_ERRORS, **STATE_ERRORS),
    },
)
async def read_metrics(services: ServicesDep) -> Response:
    """Requests, images, predictions, durations, drift and the state of the database, of the whole endpoint.

    Behind a gateway also what waits for each destination, if the database answers.
    """
    await services.reporter.flush()
    own, backlogs = await asyncio.gather(services.monitor.metrics(), _load_backlogs(services.state.store.database))
    return Response(own + render_backlogs(backlogs), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/audit", summary="Check the audit chain", responses=STATE_RESPONSES)
async def check_audit(services: ServicesDep) -> AuditCheck:
    """Whether all rows are as they were written. Only an anchor stored elsewhere reveals a chain rewritten whole."""
    database = services.state.store.database
    try:
        check = await asyncio.get_running_loop().run_in_executor(AUDIT_EXECUTOR, verify_chain, database)
    except DATABASE_ERRORS as error:
        raise database_unavailable() from error
    return AuditCheck(**vars(check))


async def _ask_model(services: Services) -> ModelInfo | None:
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            return await services.model.scorer.model_info()
    except (TimeoutError, ApiError):
        return None


async def _ask_database(database: Database) -> bool:
    return await _query(HEALTH_EXECUTOR, database, lambda session: session.scalar(select(1))) is not None


async def _load_backlogs(database: Database) -> list[Backlog]:
    return await _query(BACKLOG_EXECUTOR, database, load_backlogs) or []


async def _query(executor: ThreadPoolExecutor, database: Database, query: Callable[[Session], T]) -> T | None:
    """Runs a query; returns None if the database does not answer in time."""

    def run() -> T:
        with database.read_session() as session:
            return query(session)

    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            return await asyncio.get_running_loop().run_in_executor(executor, run)
    except (TimeoutError, *DATABASE_ERRORS):
        return None
