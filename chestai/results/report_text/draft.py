"""The draft of a report: of the template, or reworded by a language model that was held to the findings."""

import json
from dataclasses import dataclass
from typing import Literal

from chestai.config.report_text import Llm
from chestai.results.film_result import FilmResult
from chestai.results.report_text.catalogue import load_catalogue
from chestai.results.report_text.guard import Flaw, find_flaw
from chestai.results.report_text.impression import frame, list_notices, summarise_film, write_states
from chestai.results.report_text.llm import Failure, LlmError, ask, make_messages, read_text

Reason = Failure | Flaw | Literal["busy"]


@dataclass(frozen=True)
class Draft:
    """A draft, and what an audit needs to know of it.

    Attributes:
        text: A sentence a line.
        language: Of the text.
        source: Who worded it.
        reason: Why the template stands although a language model was asked; None otherwise.
        prompt: What the language model was asked, as JSON; None if it was not.
        answer: The body of its answer, as far as it was read; None if there is none.
    """

    text: str
    language: str
    source: Literal["template", "llm"]
    reason: Reason | None = None
    prompt: str | None = None
    answer: str | None = None


async def write_draft(
    result: FilmResult, language: str, llm: Llm | None = None, earlier: FilmResult | None = None
) -> Draft:
    """Writes the draft of a film, with a language model if one is given.

    Whatever the language model does, a draft comes within its `timeout_seconds`, and says no more than the findings.

    Args:
        earlier: The result of an earlier film of the same patient.

    Raises:
        ValueError: As `impression.write_impression`.
    """
    catalogue = load_catalogue(language)
    statements, notices = summarise_film(result, earlier), list_notices(result, earlier)
    template = write_states(statements, catalogue)
    plain = frame(template, statements, catalogue, notices)
    if llm is None or not template:
        return Draft(plain, language, "template")
    messages = make_messages(statements, catalogue)
    prompt, answer = json.dumps(messages, ensure_ascii=False), None
    try:
        answer = await ask(llm, messages)
        text = " ".join(read_text(answer).split())
    except LlmError as error:
        return Draft(plain, language, "template", error.reason, prompt, answer or error.answer)
    flaw = find_flaw(text, {one.finding: one.state for one in statements if one.state}, catalogue)
    if flaw is not None:
        return Draft(plain, language, "template", flaw, prompt, answer)
    return Draft(frame(text, statements, catalogue, notices), language, "llm", None, prompt, answer)
