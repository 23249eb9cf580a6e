"""Label policies: what an uncertain label (CheXpert's -1) of each finding counts as.

The policies are those of Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison", AAAI 2019, there called U-Ignore, U-Ones and U-Zeros.
"""

from collections.abc import Mapping
from typing import Literal

from chestai.errors import UserError
from chestai.labels.findings import CHEXPERT13, canonical

Policy = Literal["ignore", "ones", "zeros"]

# The target of an uncertain label; None: not known, so it counts in no loss and no metric.
TARGETS: Mapping[Policy, float | None] = {"ignore": None, "ones": 1.0, "zeros": 0.0}

# By name: the policy of all findings but the exceptions that follow.
#
# irvin2019: of the three policies the one with the highest AUROC on the validation studies, for the five findings of
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


def policies(name: str, exceptions: Mapping[str, Policy]) -> dict[str, Policy]:
    """The policy for each finding of `CHEXPERT13`.

    Args:
        name: one of `PRESETS`.
        exceptions: policies by finding, in any spelling, that go before the preset's.

    Raises:
        UserError: an exception is for no finding of CheXpert.
    """
    for finding in exceptions:
        if canonical(finding) not in CHEXPERT13:
            known = ", ".join(CHEXPERT13)
            raise UserError(f"source.uncertainty_of names {finding!r}, no finding of CheXpert: choose among {known}")
    default, of = PRESETS[name]
    own = {canonical(finding): policy for finding, policy in exceptions.items()}
    return {**dict.fromkeys(CHEXPERT13, default), **of, **own}
