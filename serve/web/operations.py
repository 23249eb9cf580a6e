"""What those who run the endpoint ask: whether it lives, whether it can answer, which model it serves."""

from fastapi import APIRouter

from serve.answers import Health, ServedCard
from serve.web.documents import CARD, LIVE, OVERLOADED, READY
from serve.web.services import Used

router = APIRouter(tags=["operations"])


@router.get("/health/live", summary="Whether the process answers", responses={200: {"content": LIVE}})
async def live() -> Health:
    """Whether this process answers; it says nothing of the model."""
    return Health()


@router.get("/health/ready", summary="Whether a model answers", responses={200: {"content": READY}, **OVERLOADED})
async def ready(services: Used) -> Health:
    """Whether a model answers, and which."""
    async with services.in_time():
        return Health(model=await services.scorer.served())


@router.get("/model", summary="Card of the served model", responses={200: {"content": CARD}, **OVERLOADED})
async def card(services: Used) -> ServedCard:
    """The card of the served model: findings, calibration, operating points, triage rule, provenance."""
    async with services.in_time():
        return await services.scorer.card()
