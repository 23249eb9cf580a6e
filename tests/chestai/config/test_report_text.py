"""Settings of report text."""

import pytest

from chestai.config import load as conf
from chestai.config.report_text import Llm
from chestai.errors import UserError


def test_no_language_model_is_asked_by_default() -> None:
    assert conf.load().report.llm is None


def test_a_language_model_is_set_on_the_command_line() -> None:
    words = ["report.language=es", 'report.llm={url: "http://127.0.0.1:8001/v1", model: m, token_variable: TOKEN}']
    report = conf.load(words).report
    assert report.language == "es"
    assert report.llm == Llm(url="http://127.0.0.1:8001/v1", model="m", token_variable="TOKEN")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("report.language=xx", "report.language='xx' is wrong: Value error, write one of en, es"),
        ('report.llm={url: "http://elsewhere/v1", model: m}', "report.llm.url='http://elsewhere/v1' is wrong"),
        ('report.llm={url: "https://elsewhere/v1"}', "report.llm.model="),
        (
            'report.llm={url: "https://elsewhere/v1", model: m, token_variable: "a b"}',
            "report.llm.token_variable='a b'",
        ),
        ('report.llm={url: "https://elsewhere/v1", model: m, timeout_seconds: 0}', "report.llm.timeout_seconds=0"),
    ],
)
def test_a_wrong_value_is_named(override: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        conf.load([override])
    assert str(error.value).startswith(words)
