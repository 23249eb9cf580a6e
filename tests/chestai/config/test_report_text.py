"""Settings of the language model of report text."""

from typing import Any

import pytest
from pydantic import ValidationError

from chestai.config.report_text import Llm

GOOD: dict[str, Any] = {"url": "https://elsewhere/v1", "model": "m", "token_variable": "TOKEN"}


def test_a_model_on_this_machine_needs_no_tls() -> None:
    assert Llm(**{**GOOD, "url": "http://127.0.0.1:8001/v1"}).timeout_seconds == 20


@pytest.mark.parametrize(
    ("key", "value"),
    [("url", "http://elsewhere/v1"), ("model", ""), ("token_variable", "a b"), ("timeout_seconds", 0)],
)
def test_a_wrong_value_is_named(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as error:
        Llm(**{**GOOD, key: value})
    assert [fault["loc"] for fault in error.value.errors()] == [(key,)]
