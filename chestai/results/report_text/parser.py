"""Reads findings from text: present, absent or uncertain; the inverse of `impression.render`.

The method is that of NegEx (Chapman et al., "A Simple Algorithm for Identifying Negated Findings and Diseases in
Discharge Summaries", Journal of Biomedical Informatics 2001): a sentence at a time, a finding takes its state from the
nearest cue whose scope reaches it. A cue before a finding reaches to the end of the sentence or to a boundary such as
"but"; one after it reaches back to a boundary, to another cue, or to where another statement begins. A finding that no
cue reaches is present. An organ and a sign of it, such as "the heart is enlarged", count as a finding.

It reads words, not meaning: double negatives, references to an earlier sentence, and findings of other films that no
phrase marks are misread.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chestai.results.report_text.catalogue import Catalogue, load_catalogue, make_lexicon
from chestai.results.report_text.lexicon import Hit, Kind, Lexicon
from chestai.results.report_text.sentences import read_sections, split_sentences, tokenise
from chestai.results.report_text.statements import State

AROUND: dict[Kind, State] = {"absent_around": "absent", "uncertain_around": "uncertain"}
BOTH: dict[Kind, State] = {"uncertain_both": "uncertain"}
BEFORE: dict[Kind, State] = {"absent_before": "absent", "uncertain_before": "uncertain", **AROUND, **BOTH}
AFTER: dict[Kind, State] = {"absent_after": "absent", "uncertain_after": "uncertain", **AROUND, **BOTH}
STATES: dict[Kind, State] = {**BEFORE, **AFTER, "absent_repeated": "absent"}
SUBJECTS: tuple[Kind, ...] = ("finding", "abnormal", "normal")
CERTAINTY: tuple[State, ...] = ("present", "uncertain", "absent")
"""The first of these that a text says of a finding counts for the whole text."""


@dataclass(frozen=True)
class Mention:
    """What a sentence says of a finding. start: its place. cues: the places of those whose scope reaches it."""

    finding: str
    state: State
    start: int
    cues: tuple[int, ...]


@dataclass(frozen=True)
class Sentence:
    """A sentence taken apart."""

    tokens: list[str]
    hits: list[Hit]
    mentions: list[Mention]


def parse(text: str, language: str, vocabulary: Sequence[str] = ()) -> dict[str, State]:
    """Reads the findings of a text.

    Args:
        text: A report, or a part of one.
        language: One of `catalogue.list_languages`.
        vocabulary: Findings that the language file may lack; they are found by their own names.

    Returns:
        Finding -> state, in the order of mention. Of several mentions, present counts before uncertain before absent.

    Raises:
        ValueError: There is no such language.
    """
    found: dict[str, State] = {}
    for sentence in read_sentences(text, load_catalogue(language), vocabulary):
        for mention in sentence.mentions:
            known = found.get(mention.finding, mention.state)
            found[mention.finding] = min(known, mention.state, key=CERTAINTY.index)
    return found


def read_sentences(
    text: str, catalogue: Catalogue, vocabulary: Sequence[str] = (), whole: bool = False
) -> Iterator[Sentence]:
    """Takes the sentences of a text apart.

    Args:
        whole: Whether headings mean nothing; otherwise, sections that do not speak of the film are left out.
    """
    lexicon = make_lexicon(catalogue, vocabulary)
    for sentence in split_sentences(text) if whole else read_sections(text, catalogue.skipped, catalogue.read):
        yield _read(tokenise(sentence), lexicon)


def _read(tokens: list[str], lexicon: Lexicon) -> Sentence:
    hits = lexicon.find(tokens)
    if any(hit.kind == "skipped" for hit in hits):
        return Sentence(tokens, hits, [])
    subjects = sorted((*_find_named(hits), *_find_signs(hits)), key=lambda subject: subject[1].start)
    return Sentence(tokens, hits, [_judge(finding, hit, negated, hits) for finding, hit, negated in subjects])


Subject = tuple[str, Hit, bool]
"""A finding, its place, and whether the words there deny it by themselves."""


def _find_named(hits: Iterable[Hit]) -> Iterator[Subject]:
    for hit in hits:
        if hit.kind == "finding":
            yield from ((finding, hit, False) for finding in hit.findings)


def _find_signs(hits: Sequence[Hit]) -> Iterator[Subject]:
    """Findings of which an organ shows a sign. A sign belongs to all organs before it up to an earlier sign."""
    organs: list[Hit] = []
    signed = False
    for hit in hits:
        if hit.kind == "boundary":
            organs = []
        elif hit.kind == "organ":
            organs, signed = [*([] if signed else organs), hit], False
        elif hit.kind in ("abnormal", "normal"):
            signed = True
            for finding in dict.fromkeys(name for organ in organs for name in organ.findings):
                if finding in hit.findings:
                    yield finding, hit, hit.kind == "normal"


def _judge(finding: str, place: Hit, negated: bool, hits: Sequence[Hit]) -> Mention:
    """The state of a finding by the nearest cue that reaches it; a normal organ that is denied is uncertain."""
    cues = [*_look_back(place, hits), *_look_ahead(place, hits)]
    nearest = min(cues, key=lambda cue: max(place.start - cue.end, cue.start - place.end), default=None)
    state: State = "present" if nearest is None else STATES[nearest.kind]
    if negated:
        state = "absent" if state == "present" else "uncertain"
    return Mention(finding, state, place.start, tuple(cue.start for cue in cues))


def _look_back(place: Hit, hits: Sequence[Hit]) -> list[Hit]:
    """The cues before a finding whose scope reaches it."""
    found, repeated = [], []
    for hit in reversed([hit for hit in hits if hit.end <= place.start]):
        if hit.kind == "boundary":
            break
        if hit.kind in BEFORE:
            found.append(hit)
        elif hit.kind == "absent_repeated":
            repeated.append(hit)
    return found or repeated[:1]


def _look_ahead(place: Hit, hits: Sequence[Hit]) -> Iterator[Hit]:
    """The cues after a finding whose scope reaches it."""
    for number, hit in enumerate(hits):
        if hit.start < place.end:
            continue
        if hit.kind in AFTER and not (hit.kind in AROUND and _leads(hits[number + 1 :])):
            yield hit
        if hit.kind in ("boundary", "statement", *BEFORE):
            return


def _leads(following: Sequence[Hit]) -> bool:
    """Whether a cue has a finding to speak of in what follows it."""
    stops = (*BEFORE, *AFTER, "boundary")
    return next((hit.kind in SUBJECTS for hit in following if hit.kind in (*SUBJECTS, *stops)), False)
