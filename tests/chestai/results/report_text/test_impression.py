"""What a draft says, and that the parser reads back what was written."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.labels.findings import KNOWN_FINDINGS
from chestai.results.film_result import FindingResult
from chestai.results.report_text.catalogue import list_languages, load_catalogue
from chestai.results.report_text.impression import frame, render, write_impression, write_states
from chestai.results.report_text.parser import parse
from chestai.results.report_text.sentences import tokenise
from chestai.results.report_text.statements import Change, State, Statement
from tests.chestai.results.samples import FILM, RESULT

FOREIGN = ("Aortic_Enlargement", "Calcification", "ILD", "Pleural_Effusion_Loculated", "Scoliosis")
NAMES = st.sampled_from([*KNOWN_FINDINGS, *FOREIGN])
STATES: st.SearchStrategy[State | None] = st.sampled_from(["present", "uncertain", "absent", None])
CHANGES: st.SearchStrategy[Change | None] = st.sampled_from(["higher", "unchanged", "lower", None])
STATEMENTS = st.dictionaries(NAMES, st.tuples(STATES, CHANGES)).map(
    lambda drawn: [Statement(name, state, change) for name, (state, change) in drawn.items()]
)
ALL = pytest.mark.parametrize("language", list_languages())


@ALL
@given(statements=STATEMENTS)
def test_what_is_written_is_read_back(language: str, statements: list[Statement]) -> None:
    text = frame(write_states(statements, load_catalogue(language)), statements, load_catalogue(language))
    vocabulary = [one.finding for one in statements]
    said = {one.finding: one.state for one in statements if one.state}
    assert parse(text, language, vocabulary) == said
    assert parse(render(statements, load_catalogue(language)), language, vocabulary) == said


@ALL
@given(statements=STATEMENTS)
def test_nothing_is_said_that_no_model_knows(language: str, statements: list[Statement]) -> None:
    catalogue = load_catalogue(language)
    assert not {*tokenise(write_states(statements, catalogue))} & catalogue.unknowable


@ALL
@pytest.mark.parametrize("finding", KNOWN_FINDINGS)
def test_every_finding_is_read_back_alone(language: str, finding: str) -> None:
    catalogue = load_catalogue(language)
    for state in ("present", "uncertain", "absent"):
        assert parse(write_states([Statement(finding, state)], catalogue), language) == {finding: state}


ROWS = (
    FindingResult("Effusion", 0.9, 0.3),
    FindingResult("Infiltration", 0.9, 0.3),
    FindingResult("Mass", 0.3, 0.3),
    FindingResult("Pneumothorax", 0.01, 0.3),
    FindingResult("Fracture", 0.01, 0.3),
    FindingResult("Hernia", 0.01, None),
    FindingResult("Scoliosis", 0.01, 0.3),
)
NOW = replace(RESULT, findings=ROWS)
EARLIER = replace(
    NOW,
    film=replace(FILM, sop_instance="1.2.3"),
    findings=tuple(replace(row, probability=0.3) for row in ROWS),
)


def test_reads_as_english() -> None:
    assert write_impression(NOW, "en", EARLIER).splitlines() == [
        "Draft by research software, not a diagnosis.",
        "The model suggests a pleural effusion and an infiltrate.",
        "The model cannot exclude a mass.",
        "The model finds no pneumothorax, fracture or Scoliosis.",
        "Not assessed, for the model has no operating point: hernia.",
        "Score higher than in the earlier film: pleural effusion and infiltrate.",
        "Score unchanged since the earlier film: mass.",
        "Score lower than in the earlier film: pneumothorax, fracture and Scoliosis.",
    ]


def test_reads_as_spanish() -> None:
    assert write_impression(NOW, "es", EARLIER).splitlines() == [
        "Borrador de un programa de investigación, no es un diagnóstico.",
        "El modelo sugiere un derrame pleural y un infiltrado.",
        "El modelo no puede descartar masa.",
        "El modelo no encuentra neumotórax, fractura ni Scoliosis.",
        "Sin valorar, pues el modelo no tiene punto de operación: hernia.",
        "Puntuación más alta que en la placa anterior: derrame pleural e infiltrado.",
        "Puntuación sin cambios desde la placa anterior: masa.",
        "Puntuación más baja que en la placa anterior: neumotórax, fractura y Scoliosis.",
    ]


@ALL
def test_scores_of_two_versions_are_not_compared(language: str) -> None:
    text = write_impression(NOW, language, replace(EARLIER, version=NOW.version + 1))
    assert text.replace(load_catalogue(language).sentences["other_model"] + "\n", "") == write_impression(NOW, language)


def test_a_film_of_another_patient_is_an_error() -> None:
    with pytest.raises(ValueError, match="two patients"):
        write_impression(NOW, "en", replace(EARLIER, film=replace(FILM, patient_id="OTHER")))


@ALL
def test_says_so_where_there_are_no_numbers_or_only_phantoms(language: str) -> None:
    sentences = load_catalogue(language).sentences
    text = write_impression(replace(NOW.without_numbers(), synthetic=True), language)
    assert text.splitlines() == [sentences[name] for name in ("draft", "synthetic", "nothing")]
    assert parse(text, language) == {}
