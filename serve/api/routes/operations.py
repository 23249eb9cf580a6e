"""What those who run the endpoint ask: whether it lives and can answer, which model it serves, how both are doing."""

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from serve.api.openapi import CARD, DRIFT, GONE, LIVE, METRICS, OVERLOADED, READY, UNWATCHED
from serve.api.services import ServicesDep
from serve.problems import documented
from serve.schemas import DescribedModel, DriftReport, DriftWindow, FeatureDrift, Health

router = APIRouter(tags=["operations"])


@router.get("/health/live", summary="Whether the process answers", responses={200: {"content": LIVE}})
async def live() -> Health:
    """Whether this process answers; it says nothing of the model."""
    return Health()


@router.get("/health/ready", summary="Whether a model answers", responses={200: {"content": READY}, **OVERLOADED})
async def ready(services: ServicesDep) -> Health:
    """Whether a model answers, and which."""
    async with services.in_time():
        return Health(model=await services.scorer.model_info())


@router.get("/model", summary="Card of the served model", responses={200: {"content": CARD}, **OVERLOADED})
async def card(services: ServicesDep) -> DescribedModel:
    """The card of the served model: findings, calibration, operating points, triage rule, provenance; and the modes."""
    async with services.in_time():
        return DescribedModel(**dict(await services.scorer.card()), modes=services.config.serve.modes)


@router.get(
    "/drift_report",
    summary="Drift of what comes in",
    responses={
        200: {"content": DRIFT},
        **documented(503, overloaded="no model says in time which version answers", **UNWATCHED, **GONE),
    },
)
async def drift_report(services: ServicesDep) -> DriftReport:
    """How far the last images, and what was answered, have moved from what the served model was made on."""
    async with services.in_time():
        served = await services.scorer.model_info()
        await services.notices.flush()
        drift = await services.watch.drift(served.version)
    return DriftReport(
        model=served,
        verdict=drift.report.verdict,
        reason=drift.reason,
        window=DriftWindow(images=drift.images, since=drift.since),
        features=[FeatureDrift(**vars(one)) for one in drift.report.features],
        reference_images=drift.reference_images,
    )


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={
        200: {"content": METRICS, "description": "Prometheus' text format, version 0.0.4."},
        **documented(503, **UNWATCHED, **GONE),
    },
)
async def metrics(services: ServicesDep) -> Response:
    """Requests, images, answers, durations, drift and the state of the database, of the whole endpoint."""
    await services.notices.flush()
    return Response(await services.watch.metrics(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
