"""A report taken apart: sections, sentences, and the tokens of a sentence."""

import re
import unicodedata
from collections.abc import Collection, Iterator

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n[ \t]*\n|\n(?=[ \t]*(?:[-*•]|\d+[.)]|[^\W\d_a-zà-ÿ]))")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_JOINTS = re.compile(r"[-‐‑_/]")  # noqa: RUF001


def normalise(text: str) -> str:
    """Lower case, without accents; a hyphen, an underscore or a slash is a space: "COVID-19" reads "covid 19"."""
    return _JOINTS.sub(" ", _strip_accents(text).lower())


def tokenise(sentence: str) -> list[str]:
    """The words, numbers and signs of a sentence, normalised."""
    return _TOKEN.findall(normalise(sentence))


def read_sections(text: str, skipped: Collection[str], read: Collection[str]) -> Iterator[str]:
    """The sentences of the sections of a report that speak of the film.

    A section starts at its heading: a name, with a colon, at the start of a line or after a full stop. What stands
    before the first heading is read.

    Args:
        skipped: Names of sections to leave out, normalised, such as "indication".
        read: Names of the others.
    """
    names = "|".join(map(re.escape, sorted((*skipped, *read), key=len, reverse=True)))
    heading = re.compile(rf"(?:^|(?<=\n)|(?<=[.!?]))[ \t]*({names})[ \t]*:", re.IGNORECASE)
    bare = _strip_accents(text)
    reads, start = True, 0
    for match in heading.finditer(bare):
        if reads:
            yield from split_sentences(bare[start : match.start()])
        reads, start = match[1].lower() not in skipped, match.end()
    if reads:
        yield from split_sentences(bare[start:])


def split_sentences(text: str) -> Iterator[str]:
    """The sentences of a text, without line breaks."""
    for sentence in _SENTENCE_END.split(text):
        if sentence.strip():
            yield " ".join(sentence.split())


def _strip_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
