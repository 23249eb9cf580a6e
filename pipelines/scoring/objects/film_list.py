"""The films of a corpus on disk: each once, however many files hold it."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from chestai.results.film import Film
from chestai.results.film_result import FilmResult, FindingResult, ResultBand


class FilmList:
    """A list of results that memory need not hold; for one thread.

    It lies in a file without a name, in the folder for temporary files: nothing is left of it, whatever kills the
    process. A film is known by its SOP Instance UID alone, as at the gateway.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        self._database.execute("CREATE TABLE films (film TEXT PRIMARY KEY, result TEXT) WITHOUT ROWID")

    def add(self, result: FilmResult) -> bool:
        """Adds a film without reviews. Returns whether it is new; one that is there stays as it is."""
        row = (result.film.sop_instance, json.dumps(asdict(result), default=str))
        return self._database.execute("INSERT OR IGNORE INTO films VALUES (?, ?)", row).rowcount == 1

    def __iter__(self) -> Iterator[FilmResult]:
        """The films, always in the same order."""
        for (text,) in self._database.execute("SELECT result FROM films ORDER BY film"):
            yield _parse(text)

    def close(self) -> None:
        """Deletes the list."""
        self._database.close()


def _parse(text: str) -> FilmResult:
    facts: dict[str, Any] = json.loads(text)
    film: dict[str, Any] = facts["film"]
    born, studied = film["birth_date"], film["studied_at"]
    film["birth_date"] = None if born is None else date.fromisoformat(born)
    film["studied_at"] = None if studied is None else datetime.fromisoformat(studied)
    facts["findings"] = tuple(_parse_finding(finding) for finding in facts["findings"])
    return FilmResult(**{**facts, "film": Film(**film), "at": datetime.fromisoformat(facts["at"]), "reviews": ()})


def _parse_finding(facts: dict[str, Any]) -> FindingResult:
    band = facts["band"]
    return FindingResult(**{**facts, "band": None if band is None else ResultBand(*band)})
