"""Writes findings as the impression of a report: sentences of a language's catalogue, the same for the same findings.

It says which findings the model suggests, cannot exclude and does not find, by the bands of `statements`, and how
scores changed since an earlier film. It names no side, place, size, severity or cause, which no model here knows, and
no finding that the model does not know.
"""

from collections.abc import Sequence
from typing import get_args

from chestai.results.film_result import FilmResult
from chestai.results.report_text.catalogue import Catalogue, load_catalogue
from chestai.results.report_text.statements import Change, State, Statement, summarise


def write_impression(result: FilmResult, language: str, earlier: FilmResult | None = None) -> str:
    """The impression of a film: a sentence a line, the first of which says that it is a draft and no diagnosis.

    Args:
        language: One of `catalogue.list_languages`.
        earlier: The result of an earlier film of the same patient.

    Raises:
        ValueError: There is no such language, or as `summarise_film`.
    """
    catalogue = load_catalogue(language)
    statements = summarise_film(result, earlier)
    return frame(write_states(statements, catalogue), statements, catalogue, list_notices(result, earlier))


def write_outgoing(result: FilmResult, language: str | None) -> str:
    """The impression that goes out with a result, which is the same whenever it is sent: no earlier film is in it.

    Args:
        language: None for no impression.

    Returns:
        Empty where there is none: without findings, and once a reviewer has spoken, whose word then counts.

    Raises:
        ValueError: As `write_impression`.
    """
    if language is None or not result.findings or result.reviewed:
        return ""
    return write_impression(result, language)


def summarise_film(result: FilmResult, earlier: FilmResult | None = None) -> list[Statement]:
    """What is to be said of the findings of a film. Scores of two model versions are not compared.

    Raises:
        ValueError: The films are of two patients, or as `summarise`.
    """
    if earlier is None:
        return summarise(result.findings)
    if (result.film.patient_id, result.film.issuer) != (earlier.film.patient_id, earlier.film.issuer):
        raise ValueError("the films are of two patients")
    return summarise(result.findings, earlier.findings if _is_comparable(result, earlier) else ())


def list_notices(result: FilmResult, earlier: FilmResult | None = None) -> list[str]:
    """The names of `Catalogue.sentences` that a result calls for, besides those of every draft."""
    other_model = earlier is not None and not _is_comparable(result, earlier)
    return [*(["synthetic"] if result.synthetic else []), *(["other_model"] if other_model else [])]


def frame(states: str, statements: Sequence[Statement], catalogue: Catalogue, notices: Sequence[str] = ()) -> str:
    """The whole draft around the sentences that say which findings are there.

    Args:
        states: Of `write_states`, or a rewording that means the same.
        notices: Of `list_notices`.
    """
    parts = [
        catalogue.sentences["draft"],
        *(catalogue.sentences[name] for name in notices),
        states or catalogue.sentences["nothing"],
        write_remarks(statements, catalogue),
    ]
    return "\n".join(part for part in parts if part)


def render(statements: Sequence[Statement], catalogue: Catalogue) -> str:
    """All sentences about findings, without the frame of a draft. `parser.parse` reads the states back."""
    return "\n".join(
        part for part in (write_states(statements, catalogue), write_remarks(statements, catalogue)) if part
    )


def write_states(statements: Sequence[Statement], catalogue: Catalogue) -> str:
    """Which findings are present, uncertain and absent; empty if the model judged none."""
    return _write(
        {state: [one.finding for one in statements if one.state == state] for state in get_args(State)}, catalogue
    )


def write_remarks(statements: Sequence[Statement], catalogue: Catalogue) -> str:
    """Which findings the model did not judge, and which scores changed."""
    groups = {"unjudged": [one.finding for one in statements if one.state is None]}
    groups |= {change: [one.finding for one in statements if one.change == change] for change in get_args(Change)}
    return _write(groups, catalogue)


def _write(groups: dict[str, list[str]], catalogue: Catalogue) -> str:
    return "\n".join(catalogue.write_list(sentence, findings) for sentence, findings in groups.items() if findings)


def _is_comparable(result: FilmResult, earlier: FilmResult) -> bool:
    return (result.model, result.version) == (earlier.model, earlier.version)
