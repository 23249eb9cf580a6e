"""A language: the names of findings, the sentences that a report may have, and the phrases that a parser reads.

Each is one TOML file in `languages/`, whose comments explain its keys. All have the same keys.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_args

from chestai.labels.findings import KNOWN_FINDINGS
from chestai.results.report_text.lexicon import Kind, Lexicon, split_phrase
from chestai.results.report_text.query_words import QueryWords, read_query_words
from chestai.results.report_text.sentences import normalise, tokenise
from chestai.results.report_text.statements import Change, State

LANGUAGES = Path(__file__).parent / "languages"
LISTS: tuple[str, ...] = (*get_args(State), "unjudged", *get_args(Change))
"""Sentences that list findings."""

PLAIN = ("draft", "synthetic", "nothing", "other_model")
"""Sentences without findings."""

CUES: tuple[Kind, ...] = (
    "absent_before",
    "absent_after",
    "uncertain_before",
    "uncertain_after",
    "absent_repeated",
    "absent_around",
    "uncertain_around",
    "uncertain_both",
    "boundary",
    "statement",
    "skipped",
    "other",
)


@dataclass(frozen=True)
class ListSentence:
    """A sentence that lists findings. form: of their names. join: before the last of them."""

    text: str
    form: str
    join: str


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a language file says.

    Attributes:
        language: The name of the file, such as `en`: a code of RFC 5646.
        title: The name of the language in English.
        sentences: Name of `PLAIN` -> sentence.
        lists: Name of `LISTS` -> sentence.
        joins: Name -> the word before the last of a list, by the beginning of that last; "" for any other.
        names: Finding -> form -> name.
        phrases: Phrase and kind -> findings, for a lexicon.
        skipped, read: Names of sections, normalised.
        instruction: To a language model.
        words: Those that a language model may use besides names of findings and cues.
        unknowable: Words of side, size and severity, which no model here knows.
        query: What a search may ask for besides findings.
    """

    language: str
    title: str
    sentences: Mapping[str, str]
    lists: Mapping[str, ListSentence]
    joins: Mapping[str, Mapping[str, str]]
    names: Mapping[str, Mapping[str, str]]
    phrases: Mapping[tuple[str, Kind], tuple[str, ...]]
    skipped: frozenset[str]
    read: frozenset[str]
    instruction: str
    words: frozenset[str]
    unknowable: frozenset[str]
    query: QueryWords

    def name(self, finding: str, form: str) -> str:
        """The name of a finding in a form; of one that the file lacks, the finding itself."""
        return self.names[finding][form] if finding in self.names else spell_out(finding)

    def write_list(self, sentence: str, findings: Sequence[str]) -> str:
        """One of `LISTS` with its findings, at least one."""
        plan = self.lists[sentence]
        *first, last = (self.name(finding, plan.form) for finding in findings)
        if not first:
            return plan.text.format(findings=last)
        words = self.joins[plan.join]
        start = max((start for start in words if normalise(last).startswith(start)), key=len)
        return plan.text.format(findings=f"{', '.join(first)} {words[start]} {last}")


def spell_out(finding: str) -> str:
    """A finding that a language has no name for, as text: its words, without signs that could end a sentence."""
    return " ".join(re.sub(r"[^\w-]|_", " ", finding).split()) or finding


def make_lexicon(catalogue: Catalogue, vocabulary: Iterable[str] = ()) -> Lexicon:
    """The phrases of a language, and the names of findings that it lacks, which count before its own phrases."""
    return _build_lexicon(catalogue, tuple(sorted({*vocabulary} - {*catalogue.names})))


@lru_cache(16)
def _build_lexicon(catalogue: Catalogue, further: tuple[str, ...]) -> Lexicon:
    own: dict[tuple[str, ...], tuple[str, ...]] = {}
    for finding in further:
        words = split_phrase(spell_out(finding))
        own[words] = (*own.get(words, ()), finding)
    phrases = {key: findings for key, findings in catalogue.phrases.items() if split_phrase(key[0]) not in own}
    return Lexicon({**phrases, **{(" ".join(words), "finding"): names for words, names in own.items() if words}})


def list_languages() -> list[str]:
    """The languages that have a file."""
    return sorted(path.stem for path in LANGUAGES.glob("*.toml"))


@cache
def load_catalogue(language: str) -> Catalogue:
    """Reads a language file.

    Raises:
        ValueError: There is none, or it lacks something; the message names it.
    """
    if language not in list_languages():
        raise ValueError(f"there is no language {language!r}: choose one of {', '.join(list_languages())}")
    return parse_catalogue(language, tomllib.loads((LANGUAGES / f"{language}.toml").read_text(encoding="utf-8")))


def parse_catalogue(language: str, values: Mapping[str, Any]) -> Catalogue:
    """Checks what a language file says, see `load_catalogue`."""
    try:
        lists = {name: ListSentence(**values["lists"][name]) for name in LISTS}
        forms = {plan.form for plan in lists.values()}
        joins = {plan.join: values["joins"][plan.join] for plan in lists.values()}
        if bare := [name for name, words in joins.items() if "" not in words]:
            raise ValueError(f"joins.{bare[0]} has no word for any other beginning")
        return Catalogue(
            language=language,
            title=values["name"],
            sentences={name: values["sentences"][name] for name in PLAIN},
            lists=lists,
            joins=joins,
            names={
                finding: {form: values["findings"][finding][form] for form in forms}
                for finding in dict.fromkeys((*KNOWN_FINDINGS, *values["findings"]))
            },
            phrases=_collect_phrases(values),
            skipped=frozenset(map(normalise, values["sections"]["skipped"])),
            read=frozenset(map(normalise, values["sections"]["read"])),
            instruction=values["llm"]["instruction"],
            words=_collect_words(values["llm"]["words"]),
            unknowable=_collect_words(values["llm"]["unknowable"]),
            query=read_query_words(values["query"]),
        )
    except KeyError as error:
        raise ValueError(f"the language file {language}.toml lacks {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"the language file {language}.toml: {error}") from error


def _collect_phrases(values: Mapping[str, Any]) -> dict[tuple[str, Kind], tuple[str, ...]]:
    """All phrases of a file: names and synonyms of findings, signs, cues."""
    found: dict[tuple[str, Kind], tuple[str, ...]] = {}

    def add(texts: Iterable[str], kind: Kind, *findings: str) -> None:
        for text in texts:
            found[text, kind] = tuple(dict.fromkeys((*found.get((text, kind), ()), *findings)))

    for finding, words in values["findings"].items():
        add((text for key, text in words.items() if key != "synonyms"), "finding", finding)
        add(words["synonyms"], "finding", finding)
    for sign in values["signs"]:
        add(sign["organs"], "organ", sign["finding"])
        add(sign["abnormal"], "abnormal", sign["finding"])
        add(sign["normal"], "normal", sign["finding"])
    for kind in CUES:
        add(values["cues"][kind], kind)
    return found


def _collect_words(lines: Iterable[str]) -> frozenset[str]:
    return frozenset(word for line in lines for word in tokenise(line))
