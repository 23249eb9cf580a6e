"""The endpoint as the gateway sees it: it scores a film over HTTP, as for any other client."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from chestai.errors import UserError
from chestai.results.film_result import ResultBand
from serve.gateway.db.films import StoredResult
from serve.problems import Problem
from serve.schemas.inference import FlaggedResponse, InferResponse

TIMEOUT_S = 60.0
FILM_ERRORS = {400, 413, 415, 422}  # statuses that say that this film cannot be scored; others may pass
MAX_DETAIL = 500


class EndpointUnavailable(Exception):
    """The endpoint cannot score now; a later attempt may succeed."""


@dataclass(frozen=True)
class Scored:
    """A film that was scored. evidence: float32 (F, h, w), None where the endpoint shows no overlays."""

    image_id: str
    result: StoredResult
    evidence: NDArray[np.float32] | None


@dataclass(frozen=True)
class KeptOut:
    """A film that the endpoint does not score. reason: a code. detail: the same for a person."""

    reason: str
    detail: str


class EndpointClient:
    """Calls one endpoint; may be used from any thread."""

    def __init__(self, url: str, key_file: str | None) -> None:
        """Raises UserError: The key cannot be read."""
        headers = {} if key_file is None else {"X-API-Key": _read_key(key_file)}
        # The endpoint is on this machine or in this network, so no proxy is asked.
        self._client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    def score(self, film: bytes, prior: bool = False) -> Scored | KeptOut:
        """Scores a DICOM file. Asks for the evidence, and does without if the endpoint shows no overlays.

        Args:
            prior: Whether it is an earlier film, about which nothing goes out: its evidence is not asked for.

        Raises:
            EndpointUnavailable: It is down, overloaded, or refuses the gateway's key.
        """
        response = self._post(film, {"prior": "true"} if prior else {"evidence": "true"})
        if response.status_code == 403 and _read_problem(response).code == "overlays_off":
            response = self._post(film, {})
        if response.status_code == 200:
            return _read_result(response)
        problem = _read_problem(response)
        if response.status_code in FILM_ERRORS:
            return KeptOut(problem.code, problem.detail[:MAX_DETAIL])
        raise EndpointUnavailable(f"the endpoint answers {response.status_code}: {problem.detail[:MAX_DETAIL]}")

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, film: bytes, parameters: dict[str, str]) -> httpx.Response:
        try:
            return self._client.post(
                "/infer", params=parameters, content=film, headers={"Content-Type": "application/dicom"}
            )
        except httpx.HTTPError as error:
            raise EndpointUnavailable(f"the endpoint does not answer ({type(error).__name__})") from error


def _read_result(response: httpx.Response) -> Scored:
    body: dict[str, Any] = response.json()
    if "flagged" in body:
        flagged = FlaggedResponse.model_validate(body)
        result = StoredResult.of(flagged.model, flagged.triage.bucket)
        return Scored(flagged.image_id, result, None)
    scored = InferResponse.model_validate(body)
    findings = [(name, value, scored.thresholds_used[name]) for name, value in scored.probabilities.items()]
    bands = {name: ResultBand(band.low, band.high, band.n) for name, band in (scored.confidence or {}).items() if band}
    result = StoredResult.of(scored.model, scored.triage.bucket, scored.triage.score, findings, bands)
    return Scored(scored.image_id, result, None if scored.evidence is None else scored.evidence.to_array())


def _read_problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate(response.json())
    except (ValueError, ValidationError):
        return Problem.of(response.status_code, "unknown", "it gives no reason")


def _read_key(file: str) -> str:
    try:
        return Path(file).expanduser().read_text().strip()
    except (OSError, UnicodeError) as error:
        raise UserError(f"gateway.key={file} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from error
