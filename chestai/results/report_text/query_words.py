"""What a language's search queries may ask for besides findings: sex, view, age. Read from its file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from chestai.results.report_text.sentences import tokenise

AgeRule = Literal["over", "at_least", "under", "at_most", "between", "exactly", "adult", "child"]
Subject = Literal["sex", "view", "age"]
NUMBER = "0"  # in a phrase, stands for any number
LONGEST_AGE = 3  # digits


@dataclass(frozen=True)
class FilterPhrase:
    """Words that ask for a sex, a view or an age. value: as the lake writes it, or the name of an `AgeRule`."""

    words: tuple[str, ...]
    subject: Subject
    value: str

    def fits(self, tokens: Sequence[str], start: int) -> bool:
        """Whether the tokens from `start` on are these words."""
        place = tokens[start : start + len(self.words)]
        pairs = zip(self.words, place, strict=False)
        return len(place) == len(self.words) and all(
            _is_age(token) if word == NUMBER else token == word for word, token in pairs
        )


@dataclass(frozen=True)
class FilterHit:
    """A phrase in a sentence, at its tokens from `start` to `end`, with the numbers there."""

    phrase: FilterPhrase
    start: int
    end: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class QueryWords:
    """Attributes:

    words: Those that change nothing.
    alternatives: Those between things of which one would be enough.
    phrases: The longest first.
    """

    words: frozenset[str]
    alternatives: frozenset[str]
    phrases: tuple[FilterPhrase, ...]

    def find(self, tokens: Sequence[str]) -> list[FilterHit]:
        """The phrases of a sentence from left to right, none over another."""
        hits, start = [], 0
        while start < len(tokens):
            phrase = next((phrase for phrase in self.phrases if phrase.fits(tokens, start)), None)
            if phrase is None:
                start += 1
                continue
            end = start + len(phrase.words)
            numbers = tuple(int(token) for token in tokens[start:end] if _is_age(token))
            hits.append(FilterHit(phrase, start, end, numbers))
            start = end
        return hits


def read_query_words(values: Mapping[str, Any]) -> QueryWords:
    """Reads the section `query` of a language file.

    Raises:
        KeyError: It lacks a key.
        ValueError: A phrase has no words, or two meanings, or not the numbers that its meaning needs.
    """
    ages = {rule: values["age"][rule] for rule in get_args(AgeRule)}
    phrases = [
        *_read_phrases("sex", values["sex"]),
        *_read_phrases("view", values["view"]),
        *_read_phrases("age", ages),
    ]
    meanings: dict[tuple[str, ...], str] = {}
    for phrase in phrases:
        if meanings.setdefault(phrase.words, phrase.value) != phrase.value:
            raise ValueError(
                f"the phrase {' '.join(phrase.words)!r} is both {meanings[phrase.words]} and {phrase.value}"
            )
    return QueryWords(
        words=frozenset(word for line in values["words"] for word in tokenise(line)),
        alternatives=frozenset(word for line in values["alternatives"] for word in tokenise(line)),
        phrases=tuple(sorted(phrases, key=lambda phrase: len(phrase.words), reverse=True)),
    )


def _read_phrases(subject: Subject, texts: Mapping[str, Iterable[str]]) -> Iterator[FilterPhrase]:
    for value, some in texts.items():
        for text in some:
            words = tuple(NUMBER if _is_age(token) else token for token in tokenise(text))
            numbers = 0 if subject != "age" or value in ("adult", "child") else 2 if value == "between" else 1
            if not words or words.count(NUMBER) != numbers:
                raise ValueError(f"the phrase {text!r} of {subject} {value} must have words, and {numbers} numbers")
            yield FilterPhrase(words, subject, value)


def _is_age(token: str) -> bool:
    return token.isascii() and token.isdigit() and len(token) <= LONGEST_AGE
