"""What is kept of an answer: the image as it was received, what the model said of it, and who asked."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from chestai.clock import now
from chestai.imaging.preprocess import Grey
from serve.api.services import Services
from serve.api.uploads import Upload
from serve.auth.permissions import Principal
from serve.db.audit import AuditEvent
from serve.db.records import Image, Prediction
from serve.inference.predictor import ScoreResult
from serve.problems import Problem

MOST_NAME = 500  # characters of a file's name
KEEP_S = 5.0  # until a store that does not answer is given up
KEEPERS = ThreadPoolExecutor(4, "keep")  # of its own, so that a store that hangs holds up nothing else


async def record_prediction(
    services: Services, who: Principal, action: str, upload: Upload, grey: Grey, scored: ScoreResult
) -> None:
    """Keep an answer. Raises `Refused` where that is impossible."""
    at, image_id = now(), upload.image_id
    uri = await _kept(services, upload)
    height, width = grey.shape
    image = Image(
        image_id=image_id,
        received_at=at,
        file_name=_storable(upload.name),
        height=height,
        width=width,
        uri=uri,
    )
    prediction = Prediction(
        image_id=image_id,
        model_version=scored.model.version,
        runtime=scored.model.runtime,
        probabilities=dict(scored.probabilities),
        score=scored.triage.score,
        bucket=scored.triage.bucket,
        drivers=tuple((one.finding, one.weighted) for one in scored.triage.drivers),
        positives=tuple(scored.positives()),
        snapshot=scored.model.snapshot,
        at=at,
    )
    told = {"model_version": scored.model.version, "bucket": scored.triage.bucket, **_place(upload.uri)}
    event = AuditEvent(actor=who.name, action=action, object=image_id, detail=told, at=at)
    await services.keep(lambda: services.store.save_prediction(image, prediction, event))


async def _kept(services: Services, upload: Upload) -> str | None:
    """Where the file lies from now on. What could not be kept is answered all the same."""
    if upload.uri is not None or not services.config.state.keep_images:
        return upload.uri
    try:
        async with asyncio.timeout(KEEP_S):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(KEEPERS, services.kept.save, upload.image_id, upload.data)
    except (OSError, pa.ArrowException) as error:
        services.kept.count_failure(error)
        return None


async def record_rejection(services: Services, who: Principal, action: str, upload: Upload, problem: Problem) -> None:
    """Keep that a file was asked for and not scored, and why."""
    told = {"not_scored": problem.code, **_place(upload.uri)}
    await services.note(AuditEvent(actor=who.name, action=action, object=upload.image_id, detail=told))


async def record_unread(services: Services, who: Principal, action: str, uri: str, problem: Problem) -> None:
    """Keep that a file was named that is not read, and why."""
    await services.note(AuditEvent(actor=who.name, action=action, detail={"not_read": problem.code, **_place(uri)}))


def _place(uri: str | None) -> dict[str, str]:
    """A URI as the audit has it, where it can be checked and not read: file names may be names of patients."""
    return {} if uri is None else {"uri_sha256": hashlib.sha256(uri.encode(errors="replace")).hexdigest()}


def _storable(name: str | None) -> str | None:
    """A file's name as a database takes it."""
    return None if name is None else name.replace("\x00", "").encode(errors="replace").decode()[:MOST_NAME]
