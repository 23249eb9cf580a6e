"""The JSON card of a model: everything about its weights that is not a weight."""

from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chestai import RESEARCH_USE
from chestai.config.schema import View
from chestai.model.classifier import Classifier
from chestai.model.ensemble import Ensemble
from chestai.triage.rule import RuleValues

FORMAT = 3


class Member(BaseModel):
    """One network of a card: a timm backbone and its pixel normalisation.

    mean, std: in units of full scale, one value for each input channel (1 or 3).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(f"mean and std have 1 or 3 channels each, not {len(self.mean)} and {len(self.std)}")
        return self


class Card(BaseModel):
    """The card of a bundle. Cards of formats 1 and 2, which describe a single network, are read as format 3.

    Attributes:
        findings: The outputs, in order.
        size: Input pixels a side.
        members: The networks whose mean is the output, all with these findings and this size.
        tta: Views of an image beside the plain one (`chestai.model.ensemble`).
        calibration: Per finding, logit -> probability.
        thresholds: Per finding, the operating point (Youden's J on val); None where undefined.
        triage: The triage rule.
        synthetic: Whether it was trained on phantoms.
        split_known: Whether it is known which patients it was trained on, initial weights included.
        provenance: Source, commit, package versions, weights of positives, pretraining of the initial weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    findings: tuple[str, ...]
    size: int
    members: tuple[Member, ...] = Field(min_length=1)
    tta: tuple[View, ...] = ()
    calibration: dict[str, Any]
    thresholds: dict[str, float | None]
    triage: RuleValues
    snapshot: str
    run_id: str
    synthetic: bool
    split_known: bool
    provenance: dict[str, Any]
    notice: str = RESEARCH_USE

    @model_validator(mode="before")
    @classmethod
    def _from_formats_1_and_2(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("format") not in (1, 2):
            return values
        member = {name: values.get(name) for name in ("backbone", "mean", "std")}
        if values["format"] == 1:  # mean and std were plain numbers
            member |= {"mean": (member["mean"],), "std": (member["std"],)}
        others = {name: value for name, value in values.items() if name not in member}
        return {**others, "format": FORMAT, "members": (member,), "split_known": False}

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        if len(set(self.tta)) != len(self.tta):
            raise ValueError(f"tta {list(self.tta)} names a view twice")
        return self

    def network(self) -> Classifier | Ensemble:
        """Builds the network that the weights belong to, with random weights."""
        classifiers = [
            Classifier(member.backbone, len(self.findings), self.size, member.mean, member.std)
            for member in self.members
        ]
        return classifiers[0] if len(classifiers) == 1 and not self.tta else Ensemble(classifiers, self.tta)


def unite_pretraining(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """The records of all pretrainings behind some cards, each once; see `chestai.model.pretrained.ancestry`."""
    united: list[dict[str, Any]] = []
    for card in cards:
        united += [record for record in card.provenance.get("pretraining", ()) if record not in united]
    return united
