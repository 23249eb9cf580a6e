"""Label policies: the target of an uncertain label (CheXpert's -1) for each finding.

The policies are those of Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison", AAAI 2019, there called U-Ignore, U-Ones and U-Zeros.
"""

from collections.abc import Mapping
from typing import Literal

from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13, canonicalise

Policy = Literal["ignore", "ones", "zeros"]

# The target of an uncertain label. None: unknown, so that it counts in no loss and no metric.
POLICY_TARGETS: Mapping[Policy, float | None] = {"ignore": None, "ones": 1.0, "zeros": 0.0}

# By name: a default policy, and the findings with another policy.
#
# irvin2019: the policy with the highest AUROC on the validation studies, for the five findings of
# the paper's Table 3 (ignore / zeros / ones): Atelectasis .818 / .811 / .858, Cardiomegaly .828 / .840 / .832,
# Consolidation .938 / .932 / .899, Edema .934 / .929 / .941, Pleural Effusion .928 / .931 / .934. The paper compares
# no other findings; those are ignored.
#
# yuan2021: Yuan et al., "Large-scale Robust Deep AUC Maximization: A New Surrogate Loss and Empirical Studies on
# Medical Image Classification", ICCV 2021, as in the loader of its library LibAUC.
PRESETS: Mapping[str, tuple[Policy, Mapping[str, Policy]]] = {
    "ignore": ("ignore", {}),
    "ones": ("ones", {}),
    "zeros": ("zeros", {}),
    "irvin2019": ("ignore", {"Atelectasis": "ones", "Cardiomegaly": "zeros", "Edema": "ones", "Effusion": "ones"}),
    "yuan2021": ("zeros", {"Atelectasis": "ones", "Edema": "ones"}),
}


def resolve_policies(name: str, exceptions: Mapping[str, Policy]) -> dict[str, Policy]:
    """Resolves the policy for each finding of `CHEXPERT13`.

    Args:
        name: One of `PRESETS`.
        exceptions: Policies by finding, in any spelling. They override those of the preset.

    Raises:
        UserError: An exception names something other than a finding of CheXpert.
    """
    for finding in exceptions:
        if canonicalise(finding) not in CHEXPERT13:
            choices = ", ".join(CHEXPERT13)
            raise UserError(
                f"source.uncertainty_of names {finding!r}, which is no finding of CheXpert: choose among {choices}"
            )
    default, preset_exceptions = PRESETS[name]
    own = {canonicalise(finding): policy for finding, policy in exceptions.items()}
    return {**dict.fromkeys(CHEXPERT13, default), **preset_exceptions, **own}
