"""Reads a search such as "effusion without edema, female, AP, over 60", in any language of report text.

Findings, their synonyms and their denial are read by the parser of reports; sex, view and age by phrases of the same
language file. A word that is neither, nor one of the words that change nothing, is outside the vocabulary: the caller
must tell it, for a search that left it out would answer another question. So is a finding that the model does not know,
a denial that reaches no finding ("not female"), and "or" between findings that are to be present.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chestai.errors import UserError
from chestai.results.report_text.catalogue import list_languages, load_catalogue
from chestai.results.report_text.lexicon import Hit
from chestai.results.report_text.parser import STATES, Sentence, read_sentences
from chestai.results.report_text.query_words import FilterHit, QueryWords
from chestai.retrieval.filters import Filters

SIGNS = frozenset(".,;:()?!&\"'")
LONGEST = 1000  # characters
CHILD_BELOW = 18  # years


@dataclass(frozen=True)
class TextQuery:
    """What a text asks for.

    Attributes:
        language: In which it was read.
        present, absent: Findings of the model. A finding in doubt ("possible pneumonia") is to be present.
        filters: Sex, view and age.
        outside: What it asks for beyond that, in its own words, normalised.
    """

    language: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    outside: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"{name} {', '.join(values)}" for name in ("present", "absent") if (values := getattr(self, name))]
        return "; ".join([*words, *([str(self.filters)] if self.filters != Filters() else [])])

    def check(self) -> None:
        """Raises UserError if something is outside the vocabulary, naming it."""
        if self.outside:
            raise UserError(f"not in this model's vocabulary: {', '.join(self.outside)}")


def parse_text_query(text: str, findings: Sequence[str], language: str | None = None) -> TextQuery:
    """Reads a text.

    Args:
        findings: Those that the model knows.
        language: One of `chestai.results.report_text.catalogue.list_languages`; None: that which leaves least outside.

    Raises:
        UserError: The text is too long, asks for nothing, or contradicts itself.
        ValueError: There is no such language.
    """
    if len(text) > LONGEST:
        raise UserError(f"a search has at most {LONGEST} characters, this one has {len(text)}")
    languages = list_languages() if language is None else [language]
    best = min((_read(text, findings, name) for name in languages), key=_count_outside)
    if both := {*best.present} & {*best.absent}:
        raise UserError(f"the search asks for {', '.join(sorted(both))} to be both present and absent")
    if best == TextQuery(best.language):
        raise UserError("the search names no finding, sex, view or age")
    return best


def _count_outside(query: TextQuery) -> int:
    return sum(len(words.split()) for words in query.outside)


def _read(text: str, findings: Sequence[str], language: str) -> TextQuery:
    catalogue = load_catalogue(language)
    present: list[str] = []
    absent: list[str] = []
    outside: list[str] = []
    hits: list[FilterHit] = []
    for sentence in read_sentences(text, catalogue, findings, whole=True):
        asked = catalogue.query.find(sentence.tokens)
        foreign = _find_foreign(sentence, asked, catalogue.query, findings)
        outside += _spell(sentence.tokens, foreign)
        hits += asked
        for mention in sentence.mentions:
            if mention.finding in findings:
                (absent if mention.state == "absent" else present).append(mention.finding)
    filters = Filters()
    if not outside:  # or an error about filters would hide what is outside
        for hit in hits:
            filters = filters.merge(_make_filter(hit))
    wanted, unwanted, unknown = (tuple(dict.fromkeys(names)) for names in (present, absent, outside))
    return TextQuery(language, wanted, unwanted, filters, unknown)


def _make_filter(hit: FilterHit) -> Filters:
    value, numbers = hit.phrase.value, hit.numbers
    if hit.phrase.subject == "sex":
        return Filters(sex=value)
    if hit.phrase.subject == "view":
        return Filters(view=value)
    lowest, highest = {
        "over": lambda: (numbers[0] + 1, None),
        "at_least": lambda: (numbers[0], None),
        "under": lambda: (None, numbers[0] - 1),
        "at_most": lambda: (None, numbers[0]),
        "between": lambda: (min(numbers), max(numbers)),
        "exactly": lambda: (numbers[0], numbers[0]),
        "adult": lambda: (CHILD_BELOW, None),
        "child": lambda: (None, CHILD_BELOW - 1),
    }[value]()
    return Filters(min_age=lowest, max_age=highest)


def _find_foreign(
    sentence: Sentence, asked: Sequence[FilterHit], words: QueryWords, findings: Sequence[str]
) -> set[int]:
    """The places of tokens that are outside the vocabulary."""
    tokens, covered = sentence.tokens, {place for hit in asked for place in range(hit.start, hit.end)}
    for hit in sentence.hits:
        if _is_understood(hit, sentence, findings):
            covered |= {*range(hit.start, hit.end)}
    for place, token in enumerate(tokens):
        if token in words.alternatives and place not in covered:
            if _joins_absent(place, sentence, asked):
                covered.add(place)
        elif token in SIGNS or token in words.words:
            covered.add(place)
    denied = {place for hit in asked for place in _list_denied(hit, sentence, words)}
    return {*range(len(tokens))} - covered | denied


def _is_understood(hit: Hit, sentence: Sentence, findings: Sequence[str]) -> bool:
    """Whether a phrase of the lexicon says something of findings that the model knows."""
    if hit.kind == "absent_repeated":
        following = (mention.state for mention in sentence.mentions if mention.start >= hit.end)
        return next(following, None) == "absent"
    if hit.kind in STATES:  # "versus" would be "or"
        return hit.kind != "uncertain_both" and any(hit.start in mention.cues for mention in sentence.mentions)
    if hit.kind == "organ":
        said = [mention for mention in sentence.mentions if mention.finding in hit.findings]
    else:
        said = [mention for mention in sentence.mentions if mention.start == hit.start]
    return hit.kind == "statement" or (bool(said) and all(mention.finding in findings for mention in said))


def _joins_absent(place: int, sentence: Sentence, asked: Sequence[FilterHit]) -> bool:
    """Whether the nearest things before and after a place are both findings to be absent."""
    things = {mention.start: mention.state == "absent" for mention in sentence.mentions}
    things |= {hit.start: False for hit in asked}
    before = max((start for start in things if start < place), default=None)
    after = min((start for start in things if start > place), default=None)
    return before is not None and after is not None and things[before] and things[after]


def _list_denied(asked: FilterHit, sentence: Sentence, words: QueryWords) -> Iterator[int]:
    """The places of a filter that a cue stands before, and of that cue: "not female" is no filter for women."""
    cues = {place: hit for hit in sentence.hits if hit.kind in STATES for place in range(hit.start, hit.end)}
    for place in reversed(range(asked.start)):
        if place in cues:
            yield from (*range(cues[place].start, cues[place].end), *range(asked.start, asked.end))
        elif sentence.tokens[place] in words.words or sentence.tokens[place] in SIGNS:
            continue
        return


def _spell(tokens: Sequence[str], places: set[int]) -> Iterator[str]:
    """The words at these places, neighbours together."""
    run: list[str] = []
    for place in range(len(tokens) + 1):
        if place in places:
            run.append(tokens[place])
        elif run:
            yield " ".join(run)
            run = []
