"""Which file a label table means: by its name, or by the one name that differs in nothing but its form."""

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pipelines.spark.sources.guesses import Guess

SUFFIX = re.compile(r"(?i)\.(png|jpe?g|dcm|dicom|dic|ima)$")


def strip_suffix(name: str) -> str:
    """Return a name without the suffix of an image file."""
    return SUFFIX.sub("", name)


def _fold_case(name: str) -> str:
    return strip_suffix(name).lower()


def _strip_zeros(name: str) -> str:
    """Strip zeros before numbers, which spreadsheets drop, and the `.0` that they add."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0$", r"\1", _fold_case(name)))


# From strict to loose: what to compare, and in words what may differ.
FORMS: Mapping[str, Callable[[str], str]] = {
    "folder": str,
    "suffix": strip_suffix,
    "case": _fold_case,
    "zeros before a number": _strip_zeros,
}


@dataclass(frozen=True)
class MatchedNames:
    """Files by the names of a table.

    Attributes:
        keys: For each file, the name by which the table names it, or its own name.
        guesses: Names that were matched although they differ.
    """

    keys: list[str]
    guesses: tuple[Guess, ...]

    def explain_mismatch(self, named: Collection[str], table: str) -> str | None:
        """Return why no file is in the table, with the nearest names; None if one is, or if there is nothing to say."""
        if not self.keys or not named or not {*self.keys}.isdisjoint(named):
            return None
        file = min(self.keys)
        nearest = difflib.get_close_matches(file, sorted(named)[:5000], 1, 0) or [min(named)]
        return f"{table} names none of the {len(self.keys):,} image files: nearest to {file} is {nearest[0]}"


def match_names(named: Collection[str], files: Sequence[str], table: str, key: str) -> MatchedNames:
    """Match the files at these paths with the names in a table.

    A name means the files whose path ends with it, or the one file whose path it ends with. Where there are none, it
    means the one file left that differs only in a form of `FORMS`; nothing is matched that could mean two.

    Args:
        key: The setting that settles what was guessed.
    """
    known = {*named}
    keys = [next((end for end in _path_ends(file) if end in known), None) for file in files]
    depths = sorted({name.count("/") + 1 for name in known}, reverse=True)
    guesses = []
    for what, form in FORMS.items():
        left, matched = known - {*keys}, 0
        example: tuple[str, str] | None = None
        for depth in depths:
            ends = ["/".join(file.split("/")[-depth:]) for file in files]
            free = {end for end, found in zip(ends, keys, strict=True) if found is None}
            pairs = _pair(free, {name for name in left if name.count("/") + 1 == depth}, form)
            matched += sum(found is None and end in pairs for end, found in zip(ends, keys, strict=True))
            keys = [found or pairs.get(end) for end, found in zip(ends, keys, strict=True)]
            example = example or min(pairs.items(), default=None)
        if example:
            file, name = example
            text = f"{matched:,} files matched with {table} although the {what} differs, such as {file} with {name}"
            guesses.append(Guess(text, key))
    most = depths[0] if depths else 1
    own = [found or "/".join(file.split("/")[-most:]) for file, found in zip(files, keys, strict=True)]
    return MatchedNames(own, tuple(guesses))


def _path_ends(path: str) -> list[str]:
    """The path and its ends, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _pair(files: Collection[str], names: Collection[str], form: Callable[[str], str]) -> dict[str, str]:
    """Pair files with names that are equal in a form, leaving out what could mean two.

    A file with fewer folders than a name is compared with the name's end.
    """
    by_form: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    lengths = {file.count("/") + 1 for file in files}
    for file in files:
        by_form[form(file)][0].append(file)
    for name in names:
        for length in lengths:
            by_form[form("/".join(name.split("/")[-length:]))][1].append(name)
    return {of[0]: to[0] for of, to in by_form.values() if len(of) == len(to) == 1}
