"""Drafts on request: few at a time ask the language model, and what it worded well is kept for a while."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from chestai.config.report_text import Llm
from chestai.results.film_result import FilmResult
from chestai.results.report_text.draft import Draft, write_draft

SEATS = 4  # drafts that ask the language model at a time
KEPT = 1000  # drafts

Key = tuple[FilmResult, str, FilmResult | None]
"""All that a draft depends on, besides the language model."""


@dataclass
class Drafter:
    """Writes drafts. For one event loop at a time.

    Attributes:
        llm: None for the template alone.
    """

    llm: Llm | None
    _asking: int = 0
    _kept: OrderedDict[Key, Draft] = field(default_factory=OrderedDict)

    async def write(self, result: FilmResult, language: str, earlier: FilmResult | None = None) -> Draft:
        """Writes the draft of a film, as `write_draft`, whose errors it raises.

        While `SEATS` others ask the language model, the template stands, for the reason `busy`. A draft that is kept
        has neither prompt nor answer: nobody was asked.
        """
        key = (result, language, earlier)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        if self.llm is None or self._asking >= SEATS:
            draft = await write_draft(result, language, None, earlier)
            return draft if self.llm is None else replace(draft, reason="busy")
        self._asking += 1
        try:
            draft = await write_draft(result, language, self.llm, earlier)
        finally:
            self._asking -= 1
        if draft.source == "llm":
            self._keep(key, replace(draft, prompt=None, answer=None))
        return draft

    def _keep(self, key: Key, draft: Draft) -> None:
        self._kept[key] = draft
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
