"""Tests of label policies: the three plain ones, the published mixes, and exceptions."""

import typing

import pytest

from chestai.config import load as conf
from chestai.config import schema
from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13
from chestai.labels.uncertainty import POLICY_TARGETS, PRESETS, resolve_policies


@pytest.mark.parametrize("policy", ["ignore", "ones", "zeros"])
def test_plain_policy_applies_to_every_finding(policy: schema.Policy) -> None:
    assert resolve_policies(policy, {}) == dict.fromkeys(CHEXPERT13, policy)


def test_irvin2019_has_best_policy_of_paper_for_each_finding() -> None:
    table = {  # Table 3: AUROC on the validation studies
        "Atelectasis": {"ignore": 0.818, "zeros": 0.811, "ones": 0.858},
        "Cardiomegaly": {"ignore": 0.828, "zeros": 0.840, "ones": 0.832},
        "Consolidation": {"ignore": 0.938, "zeros": 0.932, "ones": 0.899},
        "Edema": {"ignore": 0.934, "zeros": 0.929, "ones": 0.941},
        "Effusion": {"ignore": 0.928, "zeros": 0.931, "ones": 0.934},
    }
    chosen = resolve_policies("irvin2019", {})
    assert {finding: chosen[finding] for finding in table} == {
        finding: max(auroc, key=lambda policy: auroc[policy]) for finding, auroc in table.items()
    }
    assert {chosen[finding] for finding in CHEXPERT13 if finding not in table} == {"ignore"}


def test_yuan2021_counts_only_edema_and_atelectasis_as_present() -> None:
    chosen = resolve_policies("yuan2021", {})
    assert [finding for finding in CHEXPERT13 if chosen[finding] == "ones"] == ["Edema", "Atelectasis"]
    assert set(chosen.values()) == {"ones", "zeros"}


def test_exceptions_override_preset_in_any_spelling() -> None:
    chosen = resolve_policies("yuan2021", {"Edema": "ignore", "Pleural Effusion": "ones"})
    assert (chosen["Edema"], chosen["Effusion"], chosen["Atelectasis"]) == ("ignore", "ones", "ones")
    assert set(chosen) == set(CHEXPERT13)


@pytest.mark.parametrize("finding", ["Gout", "Hernia", "No Finding"])
def test_rejects_exception_for_unknown_finding(finding: str) -> None:
    with pytest.raises(UserError, match=rf"source\.uncertainty_of names '{finding}'.*Support_Devices$"):
        resolve_policies("ignore", {finding: "ones"})


def test_config_offers_exactly_the_presets() -> None:
    offered = schema.Chexpert.model_fields["uncertainty"].annotation
    assert set(typing.get_args(offered)) == set(PRESETS)
    for_training = typing.get_args(schema.Train.model_fields["uncertainty"].annotation)
    assert {name for kind in for_training for name in typing.get_args(kind)} == set(PRESETS)
    assert type(None) in for_training and conf.load().train.uncertainty is None
    assert set(POLICY_TARGETS) == set(typing.get_args(schema.Policy))
