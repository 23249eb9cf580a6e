"""Tests of canonical spellings, vocabularies and label parsing."""

import pytest

from chestai.labels.demographics import parse_sex, parse_view
from chestai.labels.findings import (
    CHEXPERT13,
    NIH14,
    NO_FINDING,
    canonicalise,
    encode_targets,
    merge_vocabularies,
    parse_findings,
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Effusion", "Effusion"),
        ("Pleural Effusion", "Effusion"),
        (" pleural_effusion ", "Effusion"),
        ("Infiltrate", "Infiltration"),
        ("Pleural Thickening", "Pleural_Thickening"),
        ("PNEUMONIA", "Pneumonia"),
        ("Airspace Opacity", "Lung_Opacity"),
        ("COVID", "COVID-19"),
        ("NORMAL", NO_FINDING),
        ("Viral Pneumonia", "Viral_Pneumonia"),
    ],
)
def test_canonicalises_spellings(spelling: str, name: str) -> None:
    assert canonicalise(spelling) == name and canonicalise(name) == name


def test_merged_vocabulary_has_each_finding_once_in_fixed_order() -> None:
    both = merge_vocabularies([CHEXPERT13, ("Zebra", "Asbestosis"), NIH14])
    assert both[:14] == NIH14 and both[-2:] == ("Asbestosis", "Zebra")
    assert len(both) == len(set(both)) == len({*NIH14, *CHEXPERT13}) + 2
    assert merge_vocabularies([NIH14]) == NIH14 and merge_vocabularies([NIH14[::-1]]) == NIH14


def test_parses_label_strings() -> None:
    assert parse_findings("No Finding") == []
    assert parse_findings("Mass|Infiltrate|Atelectasis") == ["Atelectasis", "Infiltration", "Mass"]
    assert sum(encode_targets(["Mass", "Hernia"])) == 2 and len(encode_targets([])) == 14
    for wrong in ("", "Mas", "No Finding|Mass"):
        with pytest.raises(ValueError, match="unknown finding"):
            parse_findings(wrong)


def test_parses_sex_and_view() -> None:
    assert [parse_sex(text) for text in ("M", "female", "Unknown", "")] == ["M", "F", None, None]
    assert [parse_view(text) for text in ("pa", "AP", "LL", "Lateral", "")] == ["PA", "AP", "lateral", "lateral", None]
