"""The model card's section on the gate: what was asked of the model before it could become champion."""

from collections.abc import Sequence

from chestai.evaluation.promotion_gate import GateCheck
from chestai.pages.page import Note, Section, Table

OUTCOMES = {True: "passed", False: "refused", None: "not judged"}


def build_gate(checks: Sequence[GateCheck]) -> list[Section]:
    """A row for each check; no section where the gate was not asked."""
    if not checks:
        return []
    note = Note(
        "A model becomes champion if no check refuses it. What could not be judged refuses nobody. Limits are the "
        "section gate of the configuration."
    )
    rows = [[check.name, OUTCOMES[check.passed], check.said] for check in checks]
    return [Section("gate", "Gate", [note, Table("The checks", ["check", "answer", "why"], rows, prose=True)])]
