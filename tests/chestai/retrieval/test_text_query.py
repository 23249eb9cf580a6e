"""Text queries: what is read in both languages, and that nothing is ignored in silence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.errors import UserError
from chestai.results.report_text.catalogue import list_languages, load_catalogue
from chestai.retrieval.filters import Filters
from chestai.retrieval.text_query import LONGEST, TextQuery, parse_text_query

NIH = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)


@pytest.mark.parametrize(
    ("text", "present", "absent", "filters"),
    [
        ("effusion without edema, female, AP, over 60", "Effusion", "Edema", Filters(sex="F", view="AP", min_age=61)),
        ("Show me PA films of men with an enlarged heart!", "Cardiomegaly", "", Filters(sex="M", view="PA")),
        ("the heart is enlarged", "Cardiomegaly", "", Filters()),
        ("no effusion, pneumothorax or consolidation", "", "Effusion Pneumothorax Consolidation", Filters()),
        ("mass but no nodule; between 40 and 60", "Mass", "Nodule", Filters(min_age=40, max_age=60)),
        ("hydropneumothorax", "Effusion Pneumothorax", "", Filters()),
        ("possible pneumonia", "Pneumonia", "", Filters()),
        ("under 18", "", "", Filters(max_age=17)),
        ("at least 65 years old", "", "", Filters(min_age=65)),
        ("65 or older", "", "", Filters(min_age=65)),
        ("65+, hernia", "Hernia", "", Filters(min_age=65)),
        ("40-60, F", "", "", Filters(sex="F", min_age=40, max_age=60)),
        ("up to 30", "", "", Filters(max_age=30)),
        ("a 50 year old woman", "", "", Filters(sex="F", min_age=50, max_age=50)),
        ("children with pneumonia", "Pneumonia", "", Filters(max_age=17)),
        ("adults over 60", "", "", Filters(min_age=61)),
        ("derrame pleural sin edema, mujer mayor de 60 años", "Effusion", "Edema", Filters(sex="F", min_age=61)),
        (
            "varones entre 40 y 60 sin derrame ni hernia",
            "",
            "Effusion Hernia",
            Filters(sex="M", min_age=40, max_age=60),
        ),
        ("niños, proyección PA, neumotórax", "Pneumothorax", "", Filters(view="PA", max_age=17)),
        ("más de 80 años", "", "", Filters(min_age=81)),
    ],
)
def test_reads(text: str, present: str, absent: str, filters: Filters) -> None:
    read = parse_text_query(text, NIH)
    assert (read.present, read.absent, read.filters) == (tuple(present.split()), tuple(absent.split()), filters)
    assert read.outside == ()
    read.check()


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("pacemaker", ["pacemaker"]),
        ("effusion with pacemaker and no central line", ["pacemaker", "central line"]),
        ("severe left effusion", ["severe left"]),
        ("pericardial effusion", ["pericardial effusion"]),
        ("heart", ["heart"]),
        ("normal heart", ["normal heart"]),
        ("effusion or edema", ["or"]),
        ("no effusion or female", ["or"]),
        ("effusion versus edema", ["versus"]),
        ("all except pneumonia", ["except"]),
        ("not female", ["not female"]),
        ("not a female, edema", ["not", "female"]),
        ("no AP, mass", ["no ap"]),
        ("women over sixty", ["over sixty"]),
        ("60", ["60"]),
        ("covid", ["covid"]),
        ("mediastinum is wide", ["mediastinum", "wide"]),
        ("marcapasos en una mujer", ["marcapasos"]),
        ("aortic dissection", ["aortic dissection"]),
        ("lateral view", ["lateral"]),
        ("effusion score", ["effusion score"]),
        ("\u2603 effusion", ["\u2603"]),
    ],
)
def test_names_what_is_outside_the_vocabulary(text: str, outside: list[str]) -> None:
    read = parse_text_query(text, NIH)
    assert list(read.outside) == outside
    with pytest.raises(UserError, match="not in this model's vocabulary: "):
        read.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("effusion and no effusion", "Effusion to be both present and absent"),
        ("male and female", "sex M and F at once"),
        ("over 60, under 18", "ages from 61 to 17"),
        ("show me all films", "names no finding, sex, view or age"),
        ("", "names no finding"),
        ("a" * (LONGEST + 1), "at most 1000 characters"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read = parse_text_query(text, NIH)
        read.filters.check({})


def test_a_finding_is_outside_for_a_model_that_does_not_know_it() -> None:
    assert parse_text_query("effusion and a mass", ("Effusion",)).outside == ("mass",)
    assert parse_text_query("hydropneumothorax", ("Effusion",)).outside == ("hydropneumothorax",)
    assert parse_text_query("pacemaker", ("Support_Devices",)).present == ("Support_Devices",)
    assert parse_text_query("aortic dissection", ("Aortic_Dissection",)).present == ("Aortic_Dissection",)


def test_a_language_can_be_named() -> None:
    assert parse_text_query("mujer", NIH, "en").outside == ("mujer",)
    with pytest.raises(ValueError, match="no language"):
        parse_text_query("mass", NIH, "xx")


@pytest.mark.parametrize("language", list_languages())
@pytest.mark.parametrize("finding", NIH)
def test_reads_every_finding_by_its_name(language: str, finding: str) -> None:
    name = load_catalogue(language).names[finding]["name"]
    assert parse_text_query(name, NIH, language) == TextQuery(language, (finding,))
    cue = {"en": "no", "es": "sin"}[language]
    assert parse_text_query(f"{cue} {name}", NIH, language) == TextQuery(language, (), (finding,))


KNOWN = ("effusion", "no edema", "mass", "female", "ap", "over 60")


WORDS = st.from_regex(r"[a-z]{3,9}qx", fullmatch=True)


@given(st.permutations(KNOWN), st.integers(0, len(KNOWN)), WORDS)
def test_no_unknown_word_is_ignored_wherever_it_stands(some: list[str], at: int, word: str) -> None:
    read = parse_text_query("; ".join([*some[:at], word, *some[at:]]), NIH)
    assert word in " ".join(read.outside).split()
