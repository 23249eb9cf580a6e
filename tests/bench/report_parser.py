"""How well the parser of report text reads real reports: Open-I's, against the MeSH terms that people gave them.

    python -m tests.bench.report_parser NLMCXR_reports.tgz

The archive is Open-I's (Demner-Fushman et al., JAMIA 2016). A hash of its ID puts a report into the half that synonyms
and cues were chosen with, or into the held-out half; those that nobody indexed are left out. A finding is tagged if a
main term means it, whatever its qualifiers, and found if the parser says `present`. `words alone` finds it wherever it
is named, denied and doubted or not. Intervals are Wilson's, of 95 %.
"""

import hashlib
import re
import sys
import tarfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chestai.results.report_text.parser import parse
from tests.bench.record import record
from tests.support.paths import ROOT

ARCHIVE = ROOT.parent / "shared" / "label-tables" / "NLMCXR_reports.tgz"
HALVES = ("development", "held out")
UNINDEXED = "No Indexing"
Z = 1.96

# Finding -> the main terms that mean it, as far as Open-I has any.
TERMS = {
    "Atelectasis": r"Pulmonary Atelectasis",
    "Cardiomegaly": r"Cardiomegaly|Cardiac Shadow/(enlarged|borderline)",
    "Effusion": r"Pleural Effusion|Hydropneumothorax",
    "Infiltration": r"Infiltrate",
    "Mass": r"Mass(/|$)",
    "Nodule": r"Nodule",
    "Pneumonia": r"Pneumonia",
    "Pneumothorax": r"Pneumothorax|Hydropneumothorax|Hemopneumothorax",
    "Consolidation": r"Consolidation",
    "Edema": r"Pulmonary Edema",
    "Emphysema": r"Emphysema|Pulmonary Emphysema|Bullous Emphysema",
    "Fibrosis": r"Pulmonary Fibrosis|Fibrosis",
    "Pleural_Thickening": r"Thickening/pleura",
    "Hernia": r"Hernia",
    "Enlarged_Cardiomediastinum": r"Mediastinum/(prominent|enlarged)",
    "Lung_Opacity": r"Opacity(?!/(adipose tissue|ribs|mediastinum))|Airspace Disease",
    "Fracture": r"Fractures, Bone",
    "Support_Devices": r"Catheters, Indwelling|Tube, Inserted|Implanted Medical Device|Medical Device",
    "Tuberculosis": r"Tuberculosis",
}


@dataclass(frozen=True)
class Report:
    """A report with its main terms, each with its qualifiers."""

    name: str
    text: str
    terms: tuple[str, ...]

    @property
    def half(self) -> str:
        return HALVES[int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 2]

    def is_tagged(self, finding: str) -> bool:
        return any(re.match(TERMS[finding], term) for term in self.terms)


def read_reports(archive: Path) -> Iterator[Report]:
    """The reports that people indexed."""
    with tarfile.open(archive) as files:
        for member in files:
            stream = files.extractfile(member) if member.name.endswith(".xml") else None
            if stream is None:
                continue
            root = ET.parse(stream).getroot()
            name = root.find("uId")
            sections = ((part.get("Label"), part.text) for part in root.iter("AbstractText"))
            text = "\n".join(f"{label}: {content}" for label, content in sections if content)
            terms = tuple(term.text or "" for term in root.iter("major"))
            if name is not None and UNINDEXED not in terms:
                yield Report(name.attrib["id"], text, terms)


def find_present(report: Report) -> set[str]:
    return {finding for finding, state in parse(report.text, "en").items() if state == "present"}


def find_named(report: Report) -> set[str]:
    return {*parse(report.text, "en")}


def measure(reports: Sequence[Report], what: str, find: Callable[[Report], set[str]]) -> list[dict[str, object]]:
    """A row a finding, and one of all findings together."""
    began = time.process_time()
    found = [find(report) for report in reports]
    rate = len(reports) / (time.process_time() - began)
    counts = {finding: count(reports, found, finding) for finding in TERMS}
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    about = {"what": what, "half": reports[0].half, "reports": len(reports)}
    rows = [{**about, "finding": finding, **rate_of(*cells)} for finding, cells in counts.items()]
    return [*rows, {**about, "finding": "all", **rate_of(*total), "reports_per_s": round(rate)}]


def count(reports: Sequence[Report], found: Sequence[set[str]], finding: str) -> tuple[int, int, int]:
    """Reports that are tagged and found, found, tagged."""
    pairs = [(report.is_tagged(finding), finding in names) for report, names in zip(reports, found, strict=True)]
    return sum(map(all, pairs)), sum(names for _, names in pairs), sum(tagged for tagged, _ in pairs)


def rate_of(both: int, found: int, tagged: int) -> dict[str, object]:
    """Precision and recall with their intervals; empty where they are over nothing."""
    cells: dict[str, object] = {"tagged": tagged, "found": found}
    for name, of in (("precision", found), ("recall", tagged)):
        low, high = wilson(both, of) if of else ("", "")
        cells |= {name: round(both / of, 3) if of else "", f"{name}_low": low, f"{name}_high": high}
    return {**cells, "reports_per_s": ""}


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The interval of a rate (Wilson 1927)."""
    centre, scale = hits + Z**2 / 2, of + Z**2
    half = Z * (hits * (of - hits) / of + Z**2 / 4) ** 0.5
    return round((centre - half) / scale, 3), round((centre + half) / scale, 3)


def main(archive: Path) -> None:
    if not archive.exists():
        print(f"skipped, because there is no {archive}: name Open-I's archive of reports")
        return
    reports = list(read_reports(archive))
    rows = []
    for half in HALVES:
        chosen = [report for report in reports if report.half == half]
        rows += measure(chosen, "parser", find_present)
        rows += measure(chosen, "words alone", find_named)
    record("report_parser", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ARCHIVE)
