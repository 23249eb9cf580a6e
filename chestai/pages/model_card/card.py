"""The model card: what is known of a model, for whoever decides whether to trust it.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Sequence

from chestai.evaluation.evidence import Evidence
from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.model_card import about, accuracy, behaviour, gate, triage
from chestai.pages.page import Page


def page(evidence: Evidence, checks: Sequence[GateCheck] = ()) -> Page:
    """All sections in the order of reading. What was not measured is named with its reason, never left out.

    checks: of the gate, where it was asked.
    """
    data = evidence.data
    sections = [
        about.use(evidence),
        about.measured(evidence),
        *gate.gate(checks),
        accuracy.ranking(evidence),
        accuracy.points(evidence),
        accuracy.calibration(evidence),
        triage.triage(evidence),
        triage.queue(evidence),
        behaviour.subgroups(evidence),
        behaviour.localisation(evidence),
        behaviour.robustness(evidence),
        behaviour.latency(evidence),
        *about.missing(evidence),
        about.limits(evidence),
        about.provenance(evidence),
        about.licences(evidence),
    ]
    title = f"Model card: {evidence.subject.title}"
    subtitle = f"Measured on {data.source}, split {data.split}"
    return Page(title, subtitle, about.facts(evidence), about.banner(evidence), sections)
