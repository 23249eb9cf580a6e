"""The model card: what is known of a model, for whoever decides whether to trust it.

After Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from collections.abc import Sequence

from chestai.evidence import Evidence
from chestai.gate import Check
from chestai.pages import card_about, card_accuracy, card_behaviour, card_gate, card_reading
from chestai.pages.page import Page


def page(evidence: Evidence, checks: Sequence[Check] = ()) -> Page:
    """All sections in the order of reading. What was not measured is named with its reason, never left out.

    checks: of the gate, where it was asked.
    """
    data = evidence.data
    sections = [
        card_about.use(evidence),
        card_about.measured(evidence),
        *card_gate.gate(checks),
        card_accuracy.ranking(evidence),
        card_accuracy.points(evidence),
        card_accuracy.calibration(evidence),
        card_reading.triage(evidence),
        card_reading.queue(evidence),
        card_behaviour.subgroups(evidence),
        card_behaviour.localisation(evidence),
        card_behaviour.robustness(evidence),
        card_behaviour.latency(evidence),
        *card_about.missing(evidence),
        card_about.limits(evidence),
        card_about.provenance(evidence),
        card_about.licences(evidence),
    ]
    title = f"Model card: {evidence.subject.title}"
    subtitle = f"Measured on {data.source}, split {data.split}"
    return Page(title, subtitle, card_about.facts(evidence), card_about.banner(evidence), sections)
