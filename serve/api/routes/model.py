"""The served model: its card, its evaluation, and the champions before it."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import mlflow
from fastapi import APIRouter
from mlflow.exceptions import MlflowException
from starlette.responses import HTMLResponse, Response

from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import CARD
from chestai.model.card import Card
from chestai.model.registry import BUNDLE, Registry
from serve.api.openapi import OVERLOADED_RESPONSES
from serve.api.services import Services, ServicesDep
from serve.problems import ApiError, error_responses
from serve.schemas.operations import DescribedModel, ModelHistory

log = logging.getLogger("ray.serve")

router = APIRouter(tags=["operations"])

T = TypeVar("T")

REGISTRY_EXECUTOR = ThreadPoolExecutor(2, "registry")  # a registry that hangs must not take the threads of images
REGISTRY_ERRORS = {
    "overloaded": "no model responds in time; `Retry-After` says when to try again",
    "registry_unavailable": "the model registry does not respond",
    "state_unavailable": "the database cannot authenticate the caller",
    "state_full": "the database is down, and the access cannot be recorded",
}
REGISTRY_RESPONSES = error_responses(503, **REGISTRY_ERRORS)
# The page of a model card has its styles and pictures in itself; it runs no script, and reads nothing of this endpoint.
CARD_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
CARD_PAGE: dict[str, Any] = {
    "text/html": {"schema": {"type": "string"}, "example": "<!doctype html><title>Model card</title>..."}
}


@router.get("/model", summary="Card of the served model", responses=OVERLOADED_RESPONSES)
async def describe_model(services: ServicesDep) -> DescribedModel:
    """The card of the served model (findings, calibration, operating points, triage rule, provenance) and the modes."""
    async with services.admission.deadline():
        card = await services.model.scorer.card()
        return DescribedModel(**dict(card), modes=services.config.serve.modes)


@router.get("/model/history", summary="Champions so far", responses=REGISTRY_RESPONSES)
async def read_history(services: ServicesDep) -> ModelHistory:
    """The champions of the registry, the current one first, without those that were rolled back."""
    return ModelHistory(champions=await _ask_registry(services, Registry.history))


@router.get(
    "/model/card",
    summary="Model card as a page",
    response_class=Response,
    responses={
        200: {"content": CARD_PAGE, "description": "The page that the evaluation wrote."},
        **error_responses(404, no_model_card="the served version was not evaluated"),
        **REGISTRY_RESPONSES,
    },
)
async def show_card(services: ServicesDep) -> Response:
    """The evaluation of the served version: tables and plots."""
    async with services.admission.deadline():
        version = (await services.model.scorer.model_info()).version
    page = await _ask_registry(services, lambda registry: registry.model_card(version))
    if page is None:
        raise ApiError(404, "no_model_card", f"version {version} was not evaluated: run `python -m pipelines.evaluate`")
    return HTMLResponse(page, headers={"Content-Security-Policy": CARD_POLICY})


async def load_card(services: Services, version: int) -> Card:
    """Returns the card of a version: of the served one or, from the registry, of another one.

    Raises:
        ApiError: 503, the model or the registry does not respond, or knows no such version.
    """
    async with services.admission.deadline():
        served = await services.model.scorer.card()
    return served if served.version == version else await _ask_registry(services, partial(_read_card, version))


def _read_card(version: int, registry: Registry) -> Card:
    """Reads the card of a version, without its weights; raises MlflowException and OSError."""
    registry.connect()
    place = f"models:/{registry.tracking.model}/{version}/data/{BUNDLE}/{CARD}"
    return Card.model_validate_json(mlflow.artifacts.load_text(place))


async def _ask_registry(services: Services, ask: Callable[[Registry], T]) -> T:
    """Asks the registry in a thread. Raises ApiError (503) if it does not respond."""
    registry = Registry(services.config.tracking, Lake(services.config.lake))
    try:
        async with services.admission.deadline():
            return await asyncio.get_running_loop().run_in_executor(REGISTRY_EXECUTOR, ask, registry)
    except (MlflowException, OSError, UserError) as error:
        log.warning("the model registry does not respond: %s", type(error).__name__)
        raise ApiError(503, "registry_unavailable", "the model registry does not respond: try again later") from error
