"""What those who run the endpoint ask: whether it lives, whether it can answer, which model it serves."""

from fastapi import APIRouter

from serve.answers import Health, ServedCard
from serve.problems import documented
from serve.web.services import Used

router = APIRouter(tags=["operations"])
UNAVAILABLE = documented(503, "`overloaded`: no model answers; when to try again is in `Retry-After`")


@router.get("/health/live")
async def live() -> Health:
    """Whether this process answers; it says nothing of the model."""
    return Health()


@router.get("/health/ready", responses=UNAVAILABLE)
async def ready(services: Used) -> Health:
    """Whether a model answers, and which."""
    async with services.in_time():
        return Health(model=await services.scorer.served())


@router.get("/model", responses=UNAVAILABLE)
async def card(services: Used) -> ServedCard:
    """The card of the served model: findings, calibration, operating points, triage rule, provenance."""
    async with services.in_time():
        return await services.scorer.card()
