"""The triage rule: scores, buckets, drivers and invalid input."""

import json
from dataclasses import replace
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.labels.findings import NIH14
from chestai.triage.rule import TriageRule

RULE = TriageRule({"Pneumothorax": 1.0, "Edema": 0.9, "Mass": 0.5})


def make_row(**probabilities: float) -> np.ndarray:
    """(14,) probabilities, 0 where not named."""
    return np.array([probabilities.get(finding, 0.0) for finding in NIH14])


def test_score_equals_a_plain_reference() -> None:
    probabilities = np.random.default_rng(0).random((200, 14))
    expected = [
        max(weight * image[NIH14.index(finding)] for finding, weight in RULE.weights.items()) for image in probabilities
    ]
    scores = RULE.score(probabilities, NIH14)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, expected)


def test_findings_without_a_weight_never_drive_the_score() -> None:
    assert RULE.score([make_row(Hernia=1.0, Mass=0.2)], NIH14)[0] == pytest.approx(0.1)


def test_columns_follow_the_order_of_findings() -> None:
    image = make_row(Edema=0.8, Mass=0.3)
    reversed_findings = list(reversed(NIH14))
    np.testing.assert_array_equal(RULE.score([image[::-1]], reversed_findings), RULE.score([image], NIH14))


def test_score_is_clipped_to_0_1() -> None:
    scores = RULE.score([make_row(Pneumothorax=1.0000001), make_row(Pneumothorax=-1, Edema=-1, Mass=-1)], NIH14)
    np.testing.assert_array_equal(scores, [1, 0])


@pytest.mark.parametrize(
    ("score", "bucket"),
    [
        (1.0, "urgent"),
        (0.8, "urgent"),
        (float(np.nextafter(0.8, 0)), "soon"),
        (0.5, "soon"),
        (float(np.nextafter(0.5, 0)), "routine"),
        (0.0, "routine"),
    ],
)
def test_score_on_a_cut_is_in_the_more_urgent_bucket(score: float, bucket: str) -> None:
    assert RULE.bucket(score) == bucket


def test_buckets_equal_a_plain_reference() -> None:
    rule = TriageRule({"Mass": 1.0}, urgent=0.6, soon=0.25)
    scores = np.append(np.random.default_rng(1).random(500), [0, 0.25, 0.6, 1])
    expected = ["urgent" if score >= 0.6 else "soon" if score >= 0.25 else "routine" for score in scores]
    assert rule.buckets(scores) == expected == [rule.bucket(score) for score in scores]
    assert rule.buckets([]) == []


def test_drivers_descend_from_the_score() -> None:
    image = make_row(Pneumothorax=0.2, Edema=0.5, Mass=0.7, Hernia=1.0)
    drivers = RULE.find_drivers(image, NIH14)
    assert [finding for finding, _ in drivers] == ["Edema", "Mass", "Pneumothorax"]
    assert [value for _, value in drivers] == pytest.approx([0.45, 0.35, 0.2])
    assert drivers[0][1] == RULE.score([image], NIH14)[0]
    assert RULE.find_drivers(image, NIH14, most=1) == drivers[:1]


def test_round_trips_through_json() -> None:
    rule = TriageRule({"Mass": 0.25, "Edema": 1.0}, urgent=0.7, soon=0.1)
    for stored in (rule, replace(rule, urgent_findings=("Mass",))):
        assert TriageRule.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_rule_stored_before_urgent_findings_were_named_has_the_default() -> None:
    rule = TriageRule.from_dict({"weights": {"Mass": 0.25, "Edema": 1.0}, "urgent": 0.7, "soon": 0.1})
    assert rule.urgent_findings == ()
    assert rule.emergencies == ("Edema",)


@pytest.mark.parametrize(
    ("weights", "urgent", "soon", "message"),
    [
        ({}, 0.8, 0.5, "empty"),
        ({"Mass": 0.0}, 0.8, 0.5, r"0\.0 of Mass"),
        ({"Mass": 1.1}, 0.8, 0.5, r"1\.1 of Mass"),
        ({"Mass": nan}, 0.8, 0.5, "nan of Mass"),
        ({"Mass": 1.0}, 0.5, 0.5, r"soon = 0\.5"),
        ({"Mass": 1.0}, 0.4, 0.5, r"urgent = 0\.4"),
        ({"Mass": 1.0}, 1.2, 0.5, r"urgent = 1\.2"),
        ({"Mass": 1.0}, 0.8, 0.0, r"soon = 0\.0"),
        ({"Mass": 1.0}, nan, 0.5, "urgent = nan"),
    ],
)
def test_rejects_invalid_rule(weights: dict[str, float], urgent: float, soon: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriageRule(weights, urgent, soon)


def test_emergencies_are_the_findings_that_alone_are_urgent() -> None:
    rule = TriageRule({"Pneumothorax": 1.0, "Edema": 0.8, "Mass": float(np.nextafter(0.8, 0)), "Hernia": 0.1})
    assert rule.emergencies == ("Pneumothorax", "Edema")
    for finding in rule.weights:
        alone = rule.score([make_row(**{finding: 1.0})], NIH14)[0]
        assert (rule.bucket(alone) == "urgent") == (finding in rule.emergencies)
    assert TriageRule({"Mass": 0.7}).emergencies == ()


def test_named_urgent_findings_are_the_emergencies_at_any_weight() -> None:
    rule = replace(RULE, urgent_findings=("Mass",))
    assert rule.emergencies == ("Mass",)
    assert replace(rule, weights={"Pneumothorax": 1.0, "Mass": 0.1}, urgent=0.3, soon=0.2).emergencies == ("Mass",)


def test_rejects_urgent_finding_without_weight() -> None:
    with pytest.raises(ValueError, match="'Hernia' has no weight"):
        replace(RULE, urgent_findings=("Mass", "Hernia"))


@given(
    weights=st.dictionaries(st.sampled_from(NIH14), st.sampled_from([0.2, 0.8, 1.0]), min_size=1),
    vocabulary=st.sets(st.sampled_from(NIH14)),
    data=st.data(),
)
def test_restricted_rule_keeps_the_emergencies_of_the_vocabulary(
    weights: dict[str, float], vocabulary: set[str], data: st.DataObject
) -> None:
    named = data.draw(st.lists(st.sampled_from(sorted(weights)), unique=True))
    rule = TriageRule(weights, urgent_findings=tuple(named))
    if not vocabulary & set(weights) or (named and not vocabulary & set(named)):
        with pytest.raises(ValueError):
            rule.restrict_to(sorted(vocabulary))
    else:
        assert rule.restrict_to(sorted(vocabulary)).emergencies == tuple(
            name for name in rule.emergencies if name in vocabulary
        )


def test_restricting_away_all_urgent_findings_is_rejected() -> None:
    with pytest.raises(ValueError, match="urgent findings Mass are none"):
        replace(RULE, urgent_findings=("Mass",)).restrict_to(["Pneumothorax", "Edema"])


def test_restricted_rule_keeps_the_weights_of_the_vocabulary() -> None:
    rule = TriageRule({"Mass": 0.9, "Fracture": 0.6})
    assert rule.restrict_to(["Fracture", "Edema"]) == TriageRule({"Fracture": 0.6})
    with pytest.raises(ValueError, match="empty"):
        rule.restrict_to(["Edema"])


def test_rejects_finding_outside_the_vocabulary() -> None:
    rule = TriageRule({"Mass": 1.0, "Fracture": 1.0})
    for attempt in (
        lambda: rule.check_findings(NIH14),
        lambda: rule.score([make_row()], NIH14),
        lambda: rule.find_drivers(make_row(), NIH14),
    ):
        with pytest.raises(ValueError, match="'Fracture'"):
            attempt()
    RULE.check_findings(NIH14)


def test_rejects_nan_instead_of_calling_it_routine() -> None:
    with pytest.raises(ValueError, match="NaN"):
        RULE.score([make_row(Edema=nan, Pneumothorax=0.9)], NIH14)
    for score in (nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="triage score"):
            RULE.bucket(score)


def test_rejects_wrong_shape() -> None:
    with pytest.raises(ValueError, match="14 findings"):
        RULE.score(np.zeros((2, 13)), NIH14)
    with pytest.raises(ValueError, match="14 findings"):
        RULE.score(np.zeros(14), NIH14)
