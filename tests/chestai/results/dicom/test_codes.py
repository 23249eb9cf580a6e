"""Every code is proved by pydicom's dictionaries, or is of the private scheme."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes as dictionaries
from pydicom.sr.coding import Code

from chestai.labels.findings import KNOWN_FINDINGS
from chestai.results.dicom import codes

PRIVATE = [code for code in vars(codes).values() if isinstance(code, Code) and code.scheme_designator == codes.PRIVATE]
PRIVATE += [*codes.BUCKETS.values(), *codes.VERDICTS.values()]
PRIVATE += [code for code in codes.FINDINGS.values() if code.scheme_designator == codes.PRIVATE]


def meanings(code: Code) -> set[str]:
    """What pydicom's copy of the dictionaries says that a code means."""
    terms: Any = concepts[code.scheme_designator]
    return {found[code.value][0] for found in terms.values() if code.value in found}


@pytest.mark.parametrize("code", codes.STANDARD, ids=lambda code: code.meaning)
def test_standard_code_is_in_the_dictionaries(code: Code) -> None:
    assert code.meaning.lower() in {meaning.lower() for meaning in meanings(code)}


def test_the_dictionaries_know_why_cardiomegaly_is_private() -> None:
    assert len(meanings(Code("287272002", "SCT", "Cardiomegaly"))) == 2


def test_procedure_family_and_categories_are_of_their_context_groups() -> None:
    assert codes.IMAGING_PROCEDURE in dictionaries.cid100
    assert codes.ARTIFICIAL_INTELLIGENCE in dictionaries.cid7162
    assert codes.ABNORMAL_STRUCTURE in dictionaries.cid7150 and codes.PHYSICAL_OBJECT in dictionaries.cid7150


def test_every_known_finding_has_a_code_of_its_own() -> None:
    assert {*codes.FINDINGS} == {*KNOWN_FINDINGS}
    assert len({(code.scheme_designator, code.value) for code in codes.FINDINGS.values()}) == len(KNOWN_FINDINGS)


@pytest.mark.parametrize("code", PRIVATE, ids=lambda code: code.value)
def test_private_codes_are_short_and_plain(code: Code) -> None:
    assert re.fullmatch(r"[A-Z0-9_-]{1,16}", code.value) and 1 <= len(code.meaning) <= 64


@given(st.text())
def test_any_other_finding_has_a_valid_code(finding: str) -> None:
    code = codes.finding_code(finding)
    assert code == codes.finding_code(finding)
    assert 1 <= len(code.value) <= 16 and 1 <= len(code.meaning) <= 64 and "\\" not in code.meaning


def test_private_scheme_is_declared() -> None:
    scheme = codes.coding_scheme()
    assert scheme.CodingSchemeDesignator == codes.PRIVATE
    assert len(codes.PRIVATE) <= 16 and scheme.CodingSchemeName and scheme.CodingSchemeResponsibleOrganization
