"""Settings of a language model that may reword report text."""

from typing import Annotated

from pydantic import Field

from chestai.config.serving import SecureUrl
from chestai.config.types import Section

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Llm(Section):
    """An OpenAI-compatible endpoint. url: its base, such as https://HOST/v1."""

    url: SecureUrl
    model: Annotated[str, Field(min_length=1)]
    token_variable: Variable | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 20.0
