"""Records what happened to an image: the file, the prediction, and who sent it."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pyarrow as pa

from chestai.clock import now
from chestai.imaging.dicom.header import Facts
from chestai.imaging.preprocess import Grey
from chestai.results.uid import is_uid
from serve.api.state import StateAccess
from serve.api.uploads import Upload
from serve.auth.permissions import Principal
from serve.db.audit import AuditEvent
from serve.db.records import Image, Prediction
from serve.db.rejections import make_rejection
from serve.inference.predictor import ScoreResult
from serve.problems import NOT_SCORED, Problem
from serve.storage.pseudonyms import PATIENT, Pseudonyms

MAX_NAME_LENGTH = 500  # characters of a recorded file name
SAVE_TIMEOUT_S = 5.0  # for storing an image
SAVE_EXECUTOR = ThreadPoolExecutor(4, "image-store")  # of its own, so that a hanging image store delays nothing else


async def record_prediction(
    state: StateAccess,
    principal: Principal,
    action: str,
    upload: Upload,
    grey: Grey,
    facts: Facts | None,
    result: ScoreResult,
    *,
    keep_image: bool,
    prior: bool,
) -> None:
    """Records an image and its prediction.

    Args:
        action: The name of the audit event.
        facts: Of a DICOM header; None of other files.
        keep_image: Whether to store the file, unless it was named by a URI.
        prior: Whether it is an earlier image, which is not in the worklist.

    Raises:
        ApiError: 503, the prediction could not be recorded.
    """
    at, image_id = now(), upload.image_id
    uri = await _store_image(state, upload) if keep_image and upload.uri is None else upload.uri
    image = Image(
        image_id=image_id,
        received_at=at,
        file_name=_clean_name(upload.name),
        height=grey.shape[0],
        width=grey.shape[1],
        uri=uri,
        prior=prior,
        **_describe(facts, state.pseudonyms),
    )
    prediction = _make_prediction(image_id, result, at)
    detail = {"model_version": result.model.version, "bucket": result.triage.bucket, **_hash_uri(upload.uri)}
    event = AuditEvent(actor=principal.name, action=action, object=image_id, detail=detail, at=at)
    await state.save(state.store.save_prediction, image, prediction, event)


def _make_prediction(image_id: str, result: ScoreResult, at: datetime) -> Prediction:
    return Prediction(
        image_id=image_id,
        model_version=result.model.version,
        runtime=result.model.runtime,
        probabilities=dict(result.probabilities),
        confidence=result.confidence,
        label_sets=result.label_sets,
        score=result.triage.score,
        bucket=result.triage.bucket,
        drivers=tuple((driver.finding, driver.weighted) for driver in result.triage.drivers),
        positives=tuple(result.positives()),
        snapshot=result.model.snapshot,
        at=at,
    )


def _describe(facts: Facts | None, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """What the record of an image takes from a DICOM header: of the patient, a pseudonym."""
    if facts is None:
        return {}
    return {
        "view": facts.view,
        "study_id": facts.study_id if facts.study_id and is_uid(facts.study_id) else None,
        "patient_key": pseudonyms.make(PATIENT, facts.patient_id or ""),
        "age_years": facts.age_years,
        "sex": facts.sex,
        "studied_on": facts.studied_on,
    }


async def _store_image(state: StateAccess, upload: Upload) -> str | None:
    """Stores the file and returns its URI; None if that failed, which does not fail the request."""
    try:
        async with asyncio.timeout(SAVE_TIMEOUT_S):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(SAVE_EXECUTOR, state.images.save, upload.image_id, upload.data)
    except (OSError, pa.ArrowException) as error:
        state.images.count_failure(error)
        return None


async def record_rejection(
    state: StateAccess, principal: Principal, action: str, upload: Upload, problem: Problem, prior: bool
) -> None:
    """Records that an image was not scored, and why; of the file, its hash alone. Raises as `record_prediction`."""
    at, image_id = now(), upload.image_id
    image = Image(image_id=image_id, received_at=at, prior=prior)
    rejection = make_rejection(image_id, problem.code, problem.detail.removeprefix(NOT_SCORED), at)
    detail = {"not_scored": problem.code, **_hash_uri(upload.uri)}
    event = AuditEvent(actor=principal.name, action=action, object=image_id, detail=detail, at=at)
    await state.save(state.store.save_rejection, image, rejection, event)


async def record_unread_uri(state: StateAccess, principal: Principal, action: str, uri: str, problem: Problem) -> None:
    """Records that the file of a URI was not read, and why. Raises as `record_prediction`."""
    detail = {"not_read": problem.code, **_hash_uri(uri)}
    await state.audit(AuditEvent(actor=principal.name, action=action, detail=detail))


def _hash_uri(uri: str | None) -> dict[str, str]:
    """Returns a URI as audit detail: its hash can be checked but not read, since file names may be patients' names."""
    return {} if uri is None else {"uri_sha256": hashlib.sha256(uri.encode(errors="replace")).hexdigest()}


def _clean_name(name: str | None) -> str | None:
    """Returns a file name without characters that databases reject."""
    return None if name is None else name.replace("\x00", "").encode(errors="replace").decode()[:MAX_NAME_LENGTH]
