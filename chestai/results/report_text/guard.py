"""Holds the text of a language model to the findings that it was given.

A text passes only if the parser reads exactly those findings from it, each with its state, and if every word of it is
one of the language file. What the parser does not know cannot slip through: "aortic dissection" is refused, as "left"
is. A text that could be read in two ways is refused too: no finding has more than one word of denial or doubt, and no
such word belongs to nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from chestai.results.report_text.catalogue import Catalogue
from chestai.results.report_text.lexicon import Kind
from chestai.results.report_text.parser import STATES, Sentence, read_sentences
from chestai.results.report_text.statements import State

Flaw = Literal["too_long", "invented", "negated", "omitted", "unknowable", "vocabulary", "ambiguous"]

LONGEST = 4000  # characters
SIGNS = {".", ",", ";", ":", "(", ")"}
KINDS: tuple[Kind, ...] = ("finding", "statement", *STATES)  # others, such as "except", count as their words


def find_flaw(text: str, expected: Mapping[str, State], catalogue: Catalogue) -> Flaw | None:
    """Why a text must not stand for some findings; None if it may.

    Args:
        expected: Finding -> state.

    Returns:
        too_long: More than `LONGEST` characters. invented: It names another finding. negated: It gives a finding
        another state. omitted: It leaves one out. unknowable: It names a side, a size, a severity or the like.
        vocabulary: It has another word or sign that the language file does not list. ambiguous: See above.
    """
    if len(text) > LONGEST:
        return "too_long"
    sentences = list(read_sentences(text, catalogue, [*expected], whole=True))
    mentions = [mention for sentence in sentences for mention in sentence.mentions]
    if any(mention.finding not in expected for mention in mentions):
        return "invented"
    if any(mention.state != expected[mention.finding] for mention in mentions):
        return "negated"
    if {mention.finding for mention in mentions} != {*expected}:
        return "omitted"
    foreign = {token for sentence in sentences for token in _list_foreign(sentence, catalogue)}
    if foreign:
        return "unknowable" if foreign & catalogue.unknowable else "vocabulary"
    return "ambiguous" if any(map(_is_ambiguous, sentences)) else None


def _list_foreign(sentence: Sentence, catalogue: Catalogue) -> Sequence[str]:
    """The tokens that are no part of a finding or a cue, and that the language file does not list."""
    covered = {place for hit in sentence.hits if hit.kind in KINDS for place in range(hit.start, hit.end)}
    loose = (token for place, token in enumerate(sentence.tokens) if place not in covered)
    return [token for token in loose if token not in SIGNS and token not in catalogue.words]


def _is_ambiguous(sentence: Sentence) -> bool:
    used = {place for mention in sentence.mentions for place in mention.cues}
    idle = any(hit.kind in STATES and hit.kind != "absent_repeated" and hit.start not in used for hit in sentence.hits)
    return idle or any(len(mention.cues) > 1 for mention in sentence.mentions)
