"""The JSON of a browser's session."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from chestai import RESEARCH_USE
from serve.auth.permissions import Role
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples

SignInMethod = Literal["api_key", "oidc"]


class SignInRequest(BaseModel):
    """An API key to sign in with."""

    model_config = ConfigDict(extra="forbid")

    api_key: Annotated[str, Field(min_length=1, max_length=200)]


class SessionInfo(Answer):
    """Who is signed in. expires_at: when the session ends at the latest; null if there is none.

    methods: how to sign in; none where the endpoint asks for no credential.
    """

    model_config = with_examples(
        {
            "signed_in": True,
            "name": "dr.reader",
            "role": "reviewer",
            "expires_at": examples.TIME,
            "methods": ["api_key", "oidc"],
        },
        {"signed_in": False, "name": None, "role": None, "expires_at": None, "methods": ["api_key"]},
    )

    signed_in: bool
    name: str | None = None
    role: Role | None = None
    expires_at: datetime | None = None
    methods: list[SignInMethod]
    notice: str = RESEARCH_USE
