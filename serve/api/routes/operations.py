"""For operators: health checks, the served model, metrics and drift."""

from typing import Any

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from serve.api.openapi import MONITOR_ERRORS, OVERLOADED_RESPONSES, STATE_ERRORS
from serve.api.services import ServicesDep
from serve.problems import error_responses
from serve.schemas.operations import DescribedModel, DriftReport, DriftWindow, FeatureDrift, Health

router = APIRouter(tags=["operations"])

METRICS_EXAMPLE = """# HELP chestai_images_total Images in requests.
# TYPE chestai_images_total counter
chestai_images_total{outcome="scored",reason=""} 990.0
chestai_images_total{outcome="not_scored",reason="truncated"} 10.0
"""
METRICS: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}, "example": METRICS_EXAMPLE}}


@router.get("/health/live", summary="Check that the process responds")
async def check_live() -> Health:
    """Whether this process responds, whatever the state of the model."""
    return Health()


@router.get("/health/ready", summary="Check that a model responds", responses=OVERLOADED_RESPONSES)
async def check_ready(services: ServicesDep) -> Health:
    """Whether a model responds, and which version."""
    async with services.admission.deadline():
        return Health(model=await services.model.scorer.model_info())


@router.get("/model", summary="Card of the served model", responses=OVERLOADED_RESPONSES)
async def describe_model(services: ServicesDep) -> DescribedModel:
    """The card of the served model (findings, calibration, operating points, triage rule, provenance) and the modes."""
    async with services.admission.deadline():
        card = await services.model.scorer.card()
        return DescribedModel(**dict(card), modes=services.config.serve.modes)


@router.get(
    "/drift_report",
    summary="Drift of images and predictions",
    responses=error_responses(503, overloaded="no model responds in time", **MONITOR_ERRORS, **STATE_ERRORS),
)
async def report_drift(services: ServicesDep) -> DriftReport:
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
    """Requests, images, predictions, durations, drift and the state of the database, of the whole endpoint."""
    await services.reporter.flush()
    return Response(await services.monitor.metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
