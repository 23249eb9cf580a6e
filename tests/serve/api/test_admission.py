"""More images at a time than the model may take or keep waiting: told so before anything of them is read."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from chestai.imaging.preprocess import Grey
from serve.api import score_image
from serve.api.app import create_app
from serve.api.routes import infer
from serve.api.uploads import Upload
from tests.serve.support.local import Reply, ask, local_app
from tests.support.models import image

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("places"), gate=False)


def with_places(app: FastAPI, places: int) -> FastAPI:
    return create_app(replace(app.state.services, places=asyncio.Semaphore(places)))


def is_full(reply: Reply) -> bool:
    return (reply.status, reply.headers.get("retry-after")) == (503, "1") and reply.json()["code"] == "overloaded"


def test_there_are_as_many_as_the_model_may_take_or_keep_waiting(tmp_path: Path) -> None:
    words = ("serve.max_replicas=3", "serve.max_ongoing_requests=5", "serve.max_queued_requests=7")
    assert local_app(tmp_path, True, *words).state.services.places._value == 3 * 5 + 7


@pytest.mark.parametrize("route", ["/infer", "/predict", "/batch_predict"])
def test_who_finds_none_is_told_to_come_back(app: FastAPI, route: str) -> None:
    full = with_places(app, 0)
    assert is_full(ask(full, route, [b"no image at all"], PNG))
    assert ask(full, "/studies", method="GET").status == 200


def test_a_body_takes_none_while_it_comes(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    single = with_places(app, 1)
    places, given, read, taken = single.state.services.places, infer.receive_image, score_image.decode_image, []

    async def came(*arguments: Any) -> Upload:
        upload = await given(*arguments)
        taken.append(places.locked())
        return upload

    async def decoded(data: bytes) -> Grey:
        taken.append(places.locked())
        return await read(data)

    monkeypatch.setattr(infer, "receive_image", came)
    monkeypatch.setattr(score_image, "decode_image", decoded)
    assert ask(single, "/infer", [image(3)], PNG).status == 200
    assert taken == [False, True]


def test_a_place_is_free_again_whatever_became_of_the_image(app: FastAPI) -> None:
    single = with_places(app, 1)
    for body, status in ((image(1), 200), (b"no image at all", 422), (image(1)[:-50], 422), (image(2), 200)):
        assert ask(single, "/infer", [body], PNG).status == status
