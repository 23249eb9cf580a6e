"""The types of the readers' page are those of the endpoint: `tsc` then finds what a change of the API breaks."""

import re
from pathlib import Path

import pytest

from serve.api.document import DOCUMENT, render_document
from tests.support.paths import ROOT

SOURCES = ROOT / "serve" / "ui" / "src"
TYPES = sorted(SOURCES.rglob("types.ts"))


def test_types_are_made_from_the_document_of_this_endpoint() -> None:
    is_current = DOCUMENT.read_text(encoding="utf-8") == render_document()
    assert is_current, "the API has changed: run `make openapi`"


@pytest.mark.parametrize("path", TYPES, ids=lambda path: path.parent.name)
def test_types_only_name_those_of_the_document(path: Path) -> None:
    code = re.sub(r'/\*.*?\*/|"[^"]*"', "", path.read_text(), flags=re.DOTALL)  # without comments and strings
    statements = [statement.strip() for statement in code.split(";")]
    names = [statement for statement in statements if re.match(r"(export )?type ", statement)]
    imports = [statement for statement in statements if statement.startswith("import type ")]
    assert names and len(names) + len(imports) + 1 == len(statements)
    assert not [statement for statement in names if re.search("[{:]", statement)], "a field is written by hand"


def test_requests_name_the_types_of_their_answers() -> None:
    requests = {
        answer
        for path in SOURCES.rglob("*.ts*")
        for answer in re.findall(r"\brequest<(.+?)>\(", path.read_text())
        if answer != "T"
    }
    assert "Session" in requests and not [answer for answer in requests if not re.fullmatch(r"\w+", answer)]
