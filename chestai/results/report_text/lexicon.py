"""The phrases that a parser looks for in a sentence, and where they are."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chestai.results.report_text.sentences import tokenise

Kind = Literal[
    "finding",
    "organ",  # is the subject of a sign: "the heart"
    "abnormal",  # a sign that an organ shows a finding: "enlarged"
    "normal",  # a sign that it does not
    "absent_before",
    "absent_after",
    "uncertain_before",
    "uncertain_after",
    "absent_repeated",  # continues an earlier cue, and denies where there is none: "nor"
    "absent_around",  # looks at what follows, and back only where no finding follows: "resolved"
    "uncertain_around",
    "uncertain_both",  # looks both ways: "versus"
    "boundary",  # where the scope of a cue ends: "but"
    "statement",  # where the scope of a cue ends that looks back: "there is"
    "skipped",  # its sentence says nothing of this film
    "other",  # has words of a finding, and is none: "pericardial effusion"
]
WILDCARD = "*"


@dataclass(frozen=True)
class Hit:
    """A phrase in a sentence. findings: what it is about, for findings, organs and signs. start, end: of its tokens."""

    kind: Kind
    findings: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class _Phrase:
    words: tuple[str, ...]
    kind: Kind
    findings: tuple[str, ...]

    def fits(self, tokens: Sequence[str], start: int) -> bool:
        if start + len(self.words) > len(tokens):
            return False
        return all(
            token.startswith(word[:-1]) if word.endswith(WILDCARD) else token == word
            for word, token in zip(self.words, tokens[start:], strict=False)
        )


class Lexicon:
    """Phrases by their first letters. Of several at one place, the one with most words counts, then the longest."""

    def __init__(self, phrases: Mapping[tuple[str, Kind], Iterable[str]]) -> None:
        """
        Args:
            phrases: Phrase and kind -> findings. A word that ends in `*` stands for all words that begin so; two
                letters or more precede the star.

        Raises:
            ValueError: A phrase has no words, or two kinds.
        """
        self._index: dict[str, list[_Phrase]] = defaultdict(list)
        kinds: dict[tuple[str, ...], Kind] = {}
        found: dict[tuple[str, ...], tuple[str, ...]] = {}
        for (text, kind), findings in phrases.items():
            words = split_phrase(text)
            if not words:
                raise ValueError(f"the phrase {text!r} has no words")
            if kinds.setdefault(words, kind) != kind:
                raise ValueError(f"the phrase {text!r} is both {kinds[words]} and {kind}")
            found[words] = tuple(dict.fromkeys((*found.get(words, ()), *findings)))
        for words, findings in found.items():
            self._index[words[0].rstrip(WILDCARD)[:2]].append(_Phrase(words, kinds[words], findings))
        for rivals in self._index.values():
            rivals.sort(key=lambda phrase: (len(phrase.words), len("".join(phrase.words))), reverse=True)

    def find(self, tokens: Sequence[str]) -> list[Hit]:
        """The phrases of a sentence from left to right, none over another."""
        hits, start = [], 0
        while start < len(tokens):
            rivals = self._index.get(tokens[start][:2], ())
            phrase = next((phrase for phrase in rivals if phrase.fits(tokens, start)), None)
            if phrase is None:
                start += 1
                continue
            hits.append(Hit(phrase.kind, phrase.findings, start, start + len(phrase.words)))
            start += len(phrase.words)
        return hits


def split_phrase(text: str) -> tuple[str, ...]:
    """The words of a phrase, normalised, each with its star if it has one."""
    words: list[str] = []
    for token in tokenise(text):
        if token == WILDCARD and words:
            words[-1] += WILDCARD
        else:
            words.append(token)
    return tuple(words)
