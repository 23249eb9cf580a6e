"""What all answers have in common."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """The JSON of an answer: all its fields are always there, null or not, and the OpenAPI document says so."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


def restore_nulls(schemas: dict[str, Any]) -> None:
    """Gives the schemas of answers in an OpenAPI document their examples again: FastAPI leaves nulls out of them."""
    for answer in _find_answers(Answer):
        extra = answer.model_config.get("json_schema_extra")
        if answer.__name__ in schemas and isinstance(extra, dict):
            schemas[answer.__name__] |= extra


def _find_answers(base: type[Answer]) -> Iterator[type[Answer]]:
    for answer in base.__subclasses__():
        yield answer
        yield from _find_answers(answer)
