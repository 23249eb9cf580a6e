"""No arrangement of words that a language model may use states another finding than those given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.results.report_text.catalogue import list_languages, load_catalogue
from chestai.results.report_text.guard import find_flaw
from chestai.results.report_text.impression import write_states
from chestai.results.report_text.parser import parse
from chestai.results.report_text.statements import State, Statement

EXPECTED: dict[str, State] = {"Effusion": "present", "Mass": "uncertain", "Pneumonia": "absent"}
ALL = pytest.mark.parametrize("language", list_languages())


@ALL
def test_the_template_passes(language: str) -> None:
    catalogue = load_catalogue(language)
    text = write_states([Statement(finding, state) for finding, state in EXPECTED.items()], catalogue)
    assert find_flaw(text, EXPECTED, catalogue) is None


@ALL
@given(data=st.data())
def test_words_thrown_into_the_template_change_nothing_or_are_refused(language: str, data: st.DataObject) -> None:
    catalogue = load_catalogue(language)
    words = write_states([Statement(finding, state) for finding, state in EXPECTED.items()], catalogue).split()
    pool = st.sampled_from(
        [text.replace("*", "") for text, _ in catalogue.phrases] + sorted(catalogue.words) + [".", ","]
    )
    for thrown in data.draw(st.lists(pool, max_size=4)):
        words.insert(data.draw(st.integers(0, len(words))), thrown)
    text = " ".join(words)
    if find_flaw(text, EXPECTED, catalogue) is None:
        assert parse(text, language) == EXPECTED


@ALL
@pytest.mark.parametrize("sign", ["?", '"', "<", "\u200b", "\u202e", "1", "_1", "é?", "\ud800"])
def test_signs_that_are_no_punctuation_are_refused(language: str, sign: str) -> None:
    catalogue = load_catalogue(language)
    text = write_states([Statement(finding, state) for finding, state in EXPECTED.items()], catalogue)
    assert find_flaw(f"{text} {sign}", EXPECTED, catalogue) == "vocabulary"
