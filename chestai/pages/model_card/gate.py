"""The model card's section on the promotion gate."""

from collections.abc import Sequence

from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.page import Note, Section, Table

OUTCOMES = {True: "passed", False: "failed", None: "not judged"}


def build_gate(checks: Sequence[GateCheck]) -> list[Section]:
    """A row for each check; no section if the gate was not applied."""
    if not checks:
        return []
    note = Note(
        "A model becomes champion if no check fails. A check that could not be judged does not count against the "
        "model. The limits are set under gate in the configuration."
    )
    rows = [[check.name, OUTCOMES[check.passed], check.message] for check in checks]
    table = Table("Checks of the gate", ["check", "outcome", "details"], rows, prose=True)
    return [Section("gate", "Promotion gate", [note, table])]
