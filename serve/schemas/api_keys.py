"""The JSON of API keys."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from chestai import RESEARCH_USE
from serve.auth.permissions import Role, Scope
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples


class ApiKeyRequest(BaseModel):
    """A key to create. days: until the key expires.

    owner: a user, who is added if unknown; then role is required. role: a known owner's own, or null.
    """

    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$")]
    role: Role | None = None
    scopes: Annotated[list[Scope], Field(min_length=1)] | None = None
    days: Annotated[float, Field(gt=0, le=36_500)] | None = None


class ApiKeyInfo(Answer):
    """The public part of an API key. scopes: what the key may do; null for everything its owner's role may do."""

    prefix: str
    owner: str
    scopes: list[Scope] | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class ApiKeyList(Answer):
    """All keys, oldest first."""

    model_config = with_examples(
        {
            "keys": [
                {
                    "prefix": "k3Jq9XbT",
                    "owner": "dr.reader",
                    "scopes": ["read"],
                    "created_at": examples.TIME,
                    "expires_at": None,
                    "revoked_at": None,
                }
            ]
        }
    )

    keys: list[ApiKeyInfo]
    notice: str = RESEARCH_USE


class NewApiKey(Answer):
    """A new key; it cannot be shown again."""

    model_config = with_examples({"key": "chestai_k3Jq9XbT_the-secret-that-is-shown-once"})

    key: str
    notice: str = RESEARCH_USE
