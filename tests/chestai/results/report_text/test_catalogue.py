"""Language files: each is complete, and can be told apart from another only by its words."""

import copy
import tomllib
from typing import Any

import pytest

from chestai.config import load as conf
from chestai.labels.findings import KNOWN_FINDINGS
from chestai.results.report_text.catalogue import (
    LANGUAGES,
    LISTS,
    list_languages,
    load_catalogue,
    make_lexicon,
    parse_catalogue,
)
from chestai.results.report_text.sentences import tokenise

ALL = pytest.mark.parametrize("language", list_languages())


def read(language: str) -> dict[str, Any]:
    return tomllib.loads((LANGUAGES / f"{language}.toml").read_text(encoding="utf-8"))


def list_keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of a file. Those of joins are beginnings of words, which are a language's own."""
    found = set()
    for key, value in values.items():
        inner = isinstance(value, dict) and prefix != "joins."
        found |= list_keys(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}" * (prefix != "joins.")}
    return found


def test_there_are_two_languages() -> None:
    assert {"en", "es"} <= {*list_languages()}


@ALL
def test_a_language_file_is_complete(language: str) -> None:
    values = read(language)
    catalogue = parse_catalogue(language, values)
    assert list_keys(values) == list_keys(read("en"))
    assert {*KNOWN_FINDINGS, *conf.load().triage.weights} <= {*catalogue.names}
    assert {*catalogue.lists} == {*LISTS}
    assert all(values["cues"].values()) and catalogue.words and catalogue.unknowable and catalogue.instruction
    assert not catalogue.skipped & catalogue.read
    assert {sign["finding"] for sign in values["signs"]} == {sign["finding"] for sign in read("en")["signs"]}
    assert all(plan.text.count("{findings}") == 1 for plan in catalogue.lists.values())
    make_lexicon(catalogue)


@ALL
def test_a_name_means_one_finding(language: str) -> None:
    catalogue = load_catalogue(language)
    for form in {plan.form for plan in catalogue.lists.values()}:
        names = [tuple(tokenise(names[form])) for names in catalogue.names.values()]
        assert len({*names}) == len(names)


@ALL
def test_a_language_model_may_use_no_word_that_denies_or_cannot_be_known(language: str) -> None:
    catalogue = load_catalogue(language)
    assert not catalogue.words & catalogue.unknowable
    names = {word for names in catalogue.names.values() for name in names.values() for word in tokenise(name)}
    assert not names & catalogue.unknowable
    hits = make_lexicon(catalogue).find(sorted(catalogue.words))
    assert not [hit for hit in hits if hit.kind.startswith(("absent", "uncertain")) and hit.kind != "absent_repeated"]


@pytest.mark.parametrize(
    "path",
    [
        ("sentences", "draft"),
        ("lists", "present"),
        ("joins", "and"),
        ("findings", "Hernia"),
        ("findings", "Hernia", "indefinite"),
        ("findings", "Hernia", "synonyms"),
        ("cues", "absent_before"),
        ("llm", "unknowable"),
    ],
)
def test_what_a_file_lacks_is_named(path: tuple[str, ...]) -> None:
    values = copy.deepcopy(read("en"))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(ValueError, match=rf"^the language file xx\.toml lacks {path[-1]}$"):
        parse_catalogue("xx", values)


def test_a_list_without_an_ordinary_ending_is_an_error() -> None:
    values = copy.deepcopy(read("es"))
    del values["joins"]["and"][""]
    with pytest.raises(ValueError, match=r"es\.toml: joins\.and"):
        parse_catalogue("es", values)


def test_an_unknown_language_is_an_error_that_lists_those_known() -> None:
    with pytest.raises(ValueError, match=r"no language 'xx': choose one of en, es"):
        load_catalogue("xx")


def test_a_phrase_of_two_kinds_is_an_error() -> None:
    values = copy.deepcopy(read("en"))
    values["cues"]["boundary"].append("no")
    with pytest.raises(ValueError, match="'no' is both"):
        make_lexicon(parse_catalogue("xx", values))
