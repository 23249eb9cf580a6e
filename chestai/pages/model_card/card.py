"""The model card: the evidence for a model, for readers who decide whether to trust it.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Sequence

from chestai.evaluation.evidence import Evidence
from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.model_card import about, accuracy, behaviour, confidence, gate, labels, search, triage
from chestai.pages.page import Page


def build_model_card(evidence: Evidence, checks: Sequence[GateCheck] = ()) -> Page:
    """Build all sections; what was not measured is listed with the reason, never left out.

    Args:
        checks: of the promotion gate, if it was applied.
    """
    data = evidence.data
    sections = [
        about.build_intended_use(evidence),
        about.build_data(evidence),
        *gate.build_gate(checks),
        accuracy.build_ranking(evidence),
        *labels.build_second_labels(evidence),
        accuracy.build_operating_points(evidence),
        accuracy.build_calibration(evidence),
        confidence.build_confidence(evidence),
        triage.build_triage(evidence),
        triage.build_queue(evidence),
        behaviour.build_subgroups(evidence),
        behaviour.build_localisation(evidence),
        behaviour.build_robustness(evidence),
        search.build_search(evidence),
        behaviour.build_latency(evidence),
        *about.build_missing(evidence),
        about.build_limits(evidence),
        about.build_provenance(evidence),
        about.build_licences(evidence),
    ]
    title = f"Model card: {evidence.subject.title}"
    subtitle = f"Measured on the {data.split} split of {data.source}"
    return Page(title, subtitle, about.build_facts(evidence), about.build_banner(evidence), sections)
