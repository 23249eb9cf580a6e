"""The objects pass the validators that the DICOM world uses: no errors from dciodvfy, dcsrdump, dsrdump and
PixelMed.

Debian's packages: dicom3tools (the first two), dcmtk, libpixelmed-java.
"""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset

from chestai.results.dicom.secondary_capture import build_picture
from chestai.results.dicom.segmentation import build_segmentation
from chestai.results.dicom.structured_report import build_report
from chestai.results.film_result import FindingResult
from tests.chestai.results.dicom.films import DEVICE, evidence_of, film_header, grey_film, result_of, reviewed, write

pytestmark = pytest.mark.slow

JARS = Path("/usr/share/java")
# Java limits the size of expressions, and PixelMed's rules are larger.
UNLIMITED = [f"-Djdk.xml.xpath{limit}=0" for limit in ("TotalOpLimit", "ExprOpLimit", "ExprGrpLimit")]
# PixelMed's rules are wrong here: Patient Orientation has two values (PS3.6); functional groups that differ by frame
# are not in the shared ones (PS3.3 C.7.6.16.1.1); Laterality is for paired parts of the body (C.7.3.1); and it does not
# know UTF-8, ISO_IR 192, so that it finds letters illegal.
PIXELMED_FAULTS = (
    "GeneralImageModule/PatientOrientation/: PatientOrientation: Incorrect value multiplicity - got 2",
    "DerivationImageMacro/DerivationImageSequence/: SharedFunctionalGroupsSequence/Item[1]/: Missing required",
    "GeneralSeriesModule/Laterality/: : Missing conditional attribute",
    "Illegal character(s)",
)


def find(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed")
    return path


def errors(command: list[str]) -> list[str]:
    """The lines of a validator's answer that name errors."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    answer = done.stdout + done.stderr
    assert answer and "Exception" not in answer and "unrecognized" not in answer, answer
    return [line for line in answer.splitlines() if line.startswith(("Error", "E:", "F:"))]


def objects(header: Dataset) -> dict[str, Dataset]:
    """Each kind of object, of a rich result."""
    result = result_of(header)
    result = replace(result, findings=(*result.findings, FindingResult("Unheard-of öddity", 0.7, 0.5)))
    evidence = evidence_of(result)
    capture = build_picture(result, header, grey_film(), evidence, DEVICE)
    segmentation = build_segmentation(result, header, evidence, DEVICE)
    assert capture is not None and segmentation is not None
    return {
        "report": build_report(result, header, DEVICE),
        "reviewed": build_report(reviewed(result), header, DEVICE),
        "drafted": build_report(result, header, DEVICE, "es"),
        "bucket": build_report(result.without_numbers(), header, DEVICE),
        "picture": capture,
        "segmentation": segmentation,
    }


HEADERS = {
    "whole": film_header(),
    "poor": film_header(
        PatientName="x" * 80,
        PatientID="",
        PatientBirthDate="never",
        StudyDate="",
        StudyTime="noon",
        PatientOrientation="",
    ),
    "japanese": film_header(SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "computed": film_header(SOPClassUID="1.2.840.10008.5.1.4.1.1.1", Modality="CR", Laterality="L"),
}
REPORTS = ("report", "reviewed", "drafted", "bucket")


@pytest.mark.parametrize("kind", HEADERS)
def test_dciodvfy_finds_no_errors(kind: str, tmp_path: Path) -> None:
    tool = find("dciodvfy")
    for name, instance in objects(HEADERS[kind]).items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(write(instance))
        assert not errors([tool, "-new", str(path)]), name


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("program", ["dsrdump", "dcsrdump"])
def test_programs_read_the_report(program: str, name: str, tmp_path: Path) -> None:
    tool, path = find(program), tmp_path / "report.dcm"
    path.write_bytes(write(objects(HEADERS["japanese"])[name]))
    assert not errors([tool, str(path)])


@pytest.mark.parametrize("name", [*REPORTS, "segmentation"])  # it has no rules for secondary captures
def test_pixelmed_finds_no_errors(name: str, tmp_path: Path) -> None:
    java, path = find("java"), tmp_path / "object.dcm"
    if not (JARS / "pixelmed.jar").exists():
        pytest.skip("PixelMed (libpixelmed-java) is not installed")
    path.write_bytes(write(objects(HEADERS["whole"])[name]))
    validator = "DicomSRValidator" if name in REPORTS else "DicomInstanceValidator"
    command = [java, *UNLIMITED, "-cp", f"{JARS}/*", f"com.pixelmed.validate.{validator}", str(path)]
    assert [line for line in errors(command) if not any(fault in line for fault in PIXELMED_FAULTS)] == []
