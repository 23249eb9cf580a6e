"""Settings of report text: its language, what it goes out with, and a language model that may reword it."""

from typing import Annotated

from pydantic import AfterValidator, Field

from chestai.config.serving import SecureUrl
from chestai.config.types import Section
from chestai.results.report_text.catalogue import list_languages


def _check_language(name: str) -> str:
    if name not in list_languages():
        raise ValueError(f"write one of {', '.join(list_languages())}")
    return name


Language = Annotated[str, AfterValidator(_check_language)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Llm(Section):
    """An OpenAI-compatible endpoint. url: its base, such as https://HOST/v1."""

    url: SecureUrl
    model: Annotated[str, Field(min_length=1)]
    token_variable: Variable | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 20.0


class ReportText(Section):
    text: bool = False
    language: Language = "en"
    llm: Llm | None = None

    @property
    def outgoing(self) -> str | None:
        """The language of the drafts that go out with results; None if none do."""
        return self.language if self.text else None
