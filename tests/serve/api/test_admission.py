"""Admission control: a request over the limit is rejected before its image is read."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from serve.api import score_image
from serve.api.admission import AdmissionControl
from serve.api.app import create_app
from serve.api.routes import images, infer
from serve.api.uploads import Upload
from serve.problems import ApiError
from tests.serve.support.local import Reply, local_app, send_request
from tests.support.models import FINDINGS, image

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return local_app(tmp_path_factory.mktemp("admission"), gate=False)


def with_slots(app: FastAPI, slots: int) -> FastAPI:
    return create_app(replace(app.state.services, admission=AdmissionControl(slots, deadline_s=30)))


def has_free_slot(admission: AdmissionControl) -> bool:
    try:
        admission.check_slot()
    except ApiError:
        return False
    return True


def is_overloaded(reply: Reply) -> bool:
    return (reply.status, reply.headers.get("retry-after")) == (503, "1") and reply.json()["code"] == "overloaded"


def test_has_a_slot_for_each_image_that_the_model_scores_or_queues(tmp_path: Path) -> None:
    limits = ("serve.max_replicas=3", "serve.max_ongoing_requests=5", "serve.max_queued_requests=7")
    admission: AdmissionControl = local_app(tmp_path, True, *limits).state.services.admission

    async def count_slots() -> int:
        async with AsyncExitStack() as stack:
            count = 0
            while has_free_slot(admission):
                await stack.enter_async_context(admission.slot())
                count += 1
            return count

    assert asyncio.run(count_slots()) == 3 * 5 + 7


def test_deadline_rejects_a_block_that_takes_too_long() -> None:
    async def sleep() -> None:
        async with AdmissionControl(1, deadline_s=0.01).deadline():
            await asyncio.sleep(10)

    with pytest.raises(ApiError, match=r"no response within 0\.01 s") as caught:
        asyncio.run(sleep())
    assert caught.value.problem.code == "overloaded"


@pytest.mark.parametrize("route", ["/infer", "/predict", "/batch_predict"])
def test_rejects_images_without_a_free_slot(app: FastAPI, route: str) -> None:
    full = with_slots(app, 0)
    assert is_overloaded(send_request(full, route, [b"no image at all"], PNG))
    assert send_request(full, "/studies", method="GET").status == 200


def test_heatmap_of_a_stored_image_takes_a_slot(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    single, free = with_slots(app, 1), []
    draw_finding = images.draw_finding

    async def check_and_draw(*arguments: Any) -> bytes:
        free.append(has_free_slot(single.state.services.admission))
        return await draw_finding(*arguments)

    monkeypatch.setattr(images, "draw_finding", check_and_draw)
    target = f"/images/stored/heatmap?label={FINDINGS[0]}"
    assert is_overloaded(send_request(with_slots(app, 0), target, method="GET")) and not free
    for _ in range(2):
        assert send_request(single, target, method="GET").status == 200
    assert free == [False, False]


def test_heatmap_ends_at_the_deadline(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(*_: object) -> bytes:
        await asyncio.sleep(30)
        return b""

    monkeypatch.setattr(images, "_read_image", sleep)
    late = create_app(replace(app.state.services, admission=AdmissionControl(1, deadline_s=0.05)))
    assert is_overloaded(send_request(late, f"/images/stored/heatmap?label={FINDINGS[0]}", method="GET"))
    assert has_free_slot(late.state.services.admission)


def test_slot_is_taken_after_the_body_is_read(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    single = with_slots(app, 1)
    admission: AdmissionControl = single.state.services.admission
    receive_image, decode_image, free = infer.receive_image, score_image.decode_image, []

    async def receive_and_check(*arguments: Any) -> Upload:
        upload = await receive_image(*arguments)
        free.append(has_free_slot(admission))
        return upload

    async def check_and_decode(*arguments: Any) -> Any:
        free.append(has_free_slot(admission))
        return await decode_image(*arguments)

    monkeypatch.setattr(infer, "receive_image", receive_and_check)
    monkeypatch.setattr(score_image, "decode_image", check_and_decode)
    assert send_request(single, "/infer", [image(3)], PNG).status == 200
    assert free == [True, False]


def test_slot_is_free_again_whatever_happened_to_the_image(app: FastAPI) -> None:
    single = with_slots(app, 1)
    for body, status in ((image(1), 200), (b"no image at all", 422), (image(1)[:-50], 422), (image(2), 200)):
        assert send_request(single, "/infer", [body], PNG).status == status
