"""Asks an OpenAI-compatible endpoint (vLLM, Ray Serve LLM and others) to word findings, in bounds of time and size."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from chestai.config.report_text import Llm
from chestai.results.report_text.catalogue import Catalogue
from chestai.results.report_text.statements import Statement

Failure = Literal["no_token", "timeout", "unreachable", "status", "too_large", "malformed"]

MOST_BYTES = 64 * 1024  # of an answer
MOST_TOKENS = 600  # that the model may write
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}

Message = dict[str, str]


class LlmError(Exception):
    """The endpoint gave no text. answer: what it sent, as far as it was read."""

    def __init__(self, reason: Failure, answer: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.answer = reason, answer


def make_messages(statements: Sequence[Statement], catalogue: Catalogue) -> list[Message]:
    """The prompt: an instruction, and the findings with their states. Nothing else of the film or the patient."""
    findings = [{"finding": catalogue.name(one.finding, "name"), "state": one.state} for one in statements if one.state]
    return [
        {"role": "system", "content": catalogue.instruction.strip()},
        {"role": "user", "content": json.dumps(findings, ensure_ascii=False)},
    ]


async def ask(settings: Llm, messages: Sequence[Message]) -> str:
    """Sends the prompt and returns the body of the answer, of at most `MOST_BYTES`.

    Redirects are not followed, and what is compressed stays so.

    Raises:
        LlmError: no_token, the environment variable is not set; timeout, the answer was not complete in time, however
            slowly it came; unreachable; status, it is not 200; too_large.
    """
    headers = {"Accept-Encoding": "identity"}
    if settings.token_variable is not None:
        if not (token := os.environ.get(settings.token_variable)):
            raise LlmError("no_token")
        headers["Authorization"] = f"Bearer {token}"
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            return await _post(settings, headers, _make_request(settings.model, messages))
    except TimeoutError as error:
        raise LlmError("timeout") from error
    except httpx.TimeoutException as error:
        raise LlmError("timeout") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise LlmError("unreachable") from error


def read_text(body: str) -> str:
    """The text in a body.

    Raises:
        LlmError: malformed, it is not JSON of the form that was asked for.
    """
    try:
        text = json.loads(json.loads(body)["choices"][0]["message"]["content"])["text"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise LlmError("malformed", body) from error
    if not isinstance(text, str):
        raise LlmError("malformed", body)
    return text


async def _post(settings: Llm, headers: Mapping[str, str], request: Mapping[str, Any]) -> str:
    url = f"{settings.url.rstrip('/')}/chat/completions"
    body = b""
    async with (
        httpx.AsyncClient(timeout=settings.timeout_seconds, trust_env=url.startswith("https:")) as client,
        client.stream("POST", url, json=request, headers=headers) as response,
    ):
        async for part in response.aiter_raw():
            body += part
            if len(body) > MOST_BYTES:
                raise LlmError("too_large", _decode(body[:MOST_BYTES]))
        if response.status_code != 200:
            raise LlmError("status", _decode(body))
    return _decode(body)


def _decode(body: bytes) -> str:
    return body.decode(errors="replace")


def _make_request(model: str, messages: Sequence[Message]) -> dict[str, Any]:
    schema = {"name": "impression", "strict": True, "schema": SCHEMA}
    return {
        "model": model,
        "messages": list(messages),
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
