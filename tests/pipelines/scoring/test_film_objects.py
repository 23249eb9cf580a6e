"""DICOM objects and FHIR Bundles of a corpus: what the gateway's builders make, each once, wherever it is scored."""

import itertools
import json
import sys
from dataclasses import astuple, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from chestai.config.gateway import Destination
from chestai.config.report_text import ReportText
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.results.dicom.film_header import read_header
from chestai.results.dicom.installation import load_device
from chestai.results.dicom.instance import Device
from chestai.results.dicom.secondary_capture import build_picture
from chestai.results.dicom.segmentation import build_segmentation
from chestai.results.dicom.structured_report import build_report
from chestai.results.dicom.uids import Kind, instance_uid
from chestai.results.fhir.bundle import to_json
from chestai.results.fhir.checks import find_problems
from chestai.results.film import Film, film_id_of
from chestai.results.film_result import FilmResult, FindingResult, ResultBand
from pipelines import score
from pipelines.scoring import place
from pipelines.scoring.ledger import Ledger
from pipelines.scoring.objects import object_writer
from serve.db.database import Database
from serve.gateway.db.films import StoredResult, add_film, make_film_row
from serve.gateway.db.models import DeliveryRow
from serve.gateway.dispatch import transmission as transmissions
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.transmission import Transmission
from serve.gateway.intake.folder import Intake
from serve.storage.pseudonyms import Pseudonyms
from tests.chestai.results.dicom.films import write
from tests.pipelines.scoring.folder import make_film, score_config, write_files
from tests.support.chain import run_quietly
from tests.support.models import image
from tests.support.s3 import start_s3_server

ALL = ("sr", "sc", "seg")
RESULT_FACTS = ("bucket", "score", "model", "version", "at", "synthetic")


FILMS = {
    f"year/{number}.dcm": make_film(number, number, max(2, number)) for number in range(1, 7)
}  # 1 and 2 are of one study, 4 is negative
OTHERS = {
    "twin.dcm": FILMS["year/3.dcm"],
    "again.dcm": make_film(40, 1, 2),
    "picture.png": image(7),
    "photo.jpg": image(8, suffix=".jpg"),
    "nameless.dcm": make_film(9, 9, 9, SeriesInstanceUID=""),
    "cut.dcm": make_film(10, 10, 10)[:3000],
}


@dataclass
class Site:
    """A corpus, and where its results go."""

    folder: Path
    config: Config
    bundle: Bundle

    @property
    def objects(self) -> Path:
        return self.folder / "objects"

    @property
    def bundles(self) -> Path:
        return self.folder / "bundles.ndjson"

    def score(self, **settings: Any) -> dict[str, Any]:
        where: dict[str, Any] = {"corpus": str(self.folder / "corpus"), "out": str(self.folder / "out")}
        return run_quietly(score.run, score_config(self.config, **where, **settings)).facts

    def score_all(self, **settings: Any) -> dict[str, Any]:
        return self.score(dicom_out=str(self.objects), dicom_objects=ALL, fhir_out=str(self.bundles), **settings)

    def list_objects(self) -> dict[str, bytes]:
        """Every file below the folder of objects."""
        files = (path for path in self.objects.rglob("*") if path.is_file())
        return {str(path.relative_to(self.objects)): path.read_bytes() for path in files}

    def read_results(self) -> list[tuple[FilmResult, np.ndarray, bytes]]:
        """Of each film the result, evidence and file, from the ledger; the first content of a film counts."""
        lake, card = Lake(str(self.folder / "out")), self.bundle.card
        found: dict[str, tuple[FilmResult, np.ndarray, bytes]] = {}
        named = {row["sha256"]: row["image_id"] for row in lake.read(Ledger(lake, 1).files).to_pylist()}
        for row in lake.read(Ledger(lake, 1).contents).to_pylist():
            data = (self.folder / "corpus" / named[row["sha256"]]).read_bytes()
            if not named[row["sha256"]].endswith(".dcm") or data == OTHERS["nameless.dcm"]:
                continue
            findings = tuple(self.make_finding(one, row[f"prob_{one}"]) for one in card.findings)
            about = (row["bucket"], row["triage_score"], "chestai", 1, row["scored_at"].astimezone(UTC))
            result = FilmResult(Film.from_header(read_header(data)), findings, *about, synthetic=True)
            evidence = np.zeros((len(findings), 2, 2), np.float32)
            for one in row["heatmaps"]:
                evidence[card.findings.index(one["finding"])] = np.frombuffer(one["evidence"], np.float32).reshape(2, 2)
            found.setdefault(result.film.sop_instance, (result, evidence, data))
        return list(found.values())

    def make_finding(self, name: str, probability: float) -> FindingResult:
        band = None if self.bundle.confidence is None else self.bundle.confidence.confidence(name, probability)
        found = None if band is None else ResultBand(band.low, band.high, band.n)
        return FindingResult(name, probability, self.bundle.card.thresholds[name], found)

    def expected_objects(self) -> dict[str, bytes]:
        """What the builders make, at the paths of the gateway."""
        device = load_device(Lake(self.config.lake).uri("state", "device"))
        files, expected = ResultFiles(Path(), device), dict[str, bytes]()
        for result, evidence, data in self.read_results():
            header = read_header(data)
            made: dict[Kind, Dataset | None] = {
                "sr": build_report(result, header, device, self.config.report.outgoing),
                "sc": build_picture(result, header, preprocess.decode(data), evidence, device),
                "seg": build_segmentation(result, header, evidence, device),
            }
            for kind, instance in made.items():
                if instance is not None:
                    uid = instance_uid(result.film.sop_instance, "chestai", 1, kind)
                    assert instance.SOPInstanceUID == uid
                    expected[str(files.path(film_id_of(result.film.sop_instance), kind, 1, 0))] = write(instance)
        return expected

    def expected_bundles(self) -> list[bytes]:
        """What the gateway sends of each film, in the order of their UIDs."""
        sent = list[bytes]()
        transmission = Transmission(
            Destination(kind="fhir", url="http://127.0.0.1/fhir"),
            "CHESTAI",
            Database(f"sqlite:///{self.folder}/gateway.db"),
            Intake(self.folder / "gateway"),
            ResultFiles(self.folder / "gateway", Device("", "")),
            None,
            self.config.report.outgoing,
        )
        transmission.database.migrate()
        for result, _, data in sorted(self.read_results(), key=lambda one: one[0].film.sop_instance):
            facts: dict[str, Any] = {name: getattr(result, name) for name in RESULT_FACTS}
            facts["bands"] = {one.finding: one.band for one in result.findings if one.band}
            stored = StoredResult(findings=tuple(astuple(one)[:3] for one in result.findings), **facts)
            film_id, outcome = film_id_of(result.film.sop_instance), {"result": stored.model_dump(mode="json")}
            transmission.intake.add(result.film.sop_instance, data)
            with transmission.database.write_session() as session:
                add_film(session, make_film_row(film_id, result.film, Pseudonyms(bytes(32)), result.at, **outcome))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(transmissions.fhir, "send", lambda bundle, *_: sent.append(to_json(bundle)))
                transmission.send(DeliveryRow(film_id=film_id, kind="fhir", revision=0))
        transmission.database.close()
        return sent


@pytest.fixture
def site(registered: Config, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    write_files(tmp_path / "corpus", FILMS | OTHERS)
    monkeypatch.setattr(score, "choose_place", lambda *_: place.ThisProcess())
    for mode in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(
            pydicom.config.settings, mode, getattr(pydicom.config.settings, mode)
        )  # restored afterwards
    return Site(tmp_path, registered, bundle)


@pytest.mark.parametrize(("where", "text"), [("this process, without Ray", True), ("Ray", False)])
@pytest.mark.usefixtures("in_process")
def test_writes_what_the_builders_make(site: Site, where: str, text: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    site.config = site.config.model_copy(update={"report": ReportText(text=text, language="es")})
    places = (place.ThisProcess(), place.OnRay(site.config.cluster, Lake(site.config.lake)))
    chosen = next(one for one in places if one.name == where)
    monkeypatch.setattr(score, "choose_place", lambda *_: chosen)
    facts = site.score_all()
    assert facts["scored_by"] == where and (facts["scored"], sum(facts["quarantined"].values())) == (11, 1)
    assert (facts["films"], facts["twin_files"]) == (6, 2)
    assert facts["without_objects"] == {"no DICOM header": 2, "no valid DICOM UIDs": 1}
    found, expected = site.list_objects(), site.expected_objects()
    assert {name: data == expected.get(name) for name, data in found.items()} == dict.fromkeys(expected, True)
    counts = {kind: sum(Path(name).name.startswith(f"{kind}-") for name in found) for kind in ALL}
    assert facts["dicom_objects"] == counts and facts["dicom_objects_written"] == len(found)
    assert 0 < counts["sc"] == counts["seg"] < counts["sr"] == 6, "not a film of each kind"

    lines = site.bundles.read_bytes().splitlines()
    assert facts["fhir_bundles"] == len(lines) == 6 and lines == site.expected_bundles()
    assert [find_problems(json.loads(line)) for line in lines] == [[]] * 6
    assert all(("no es un diagnóstico".encode() in told) == text for told in lines)
    assert all(("no es un diagnóstico".encode() in data) == text for name, data in found.items() if "/sr-" in name)
    assert str(site.objects) in facts["written"] and str(site.bundles) in facts["written"]


def test_run_goes_on_where_another_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, save = itertools.count(), object_writer.save_object

    def save_three(instance: Any, path: str) -> None:
        if next(calls) >= 3:
            raise OSError("no space left")
        save(instance, path)

    monkeypatch.setattr(object_writer, "save_object", save_three)
    with pytest.raises(UserError, match=r"score\.dicom_out=.*objects cannot be written: no space left"):
        site.score_all()
    assert len(site.list_objects()) == 3 and not site.bundles.exists()
    times = {path: path.stat().st_mtime_ns for path in site.objects.rglob("*.dcm")}

    monkeypatch.setattr(object_writer, "save_object", save)
    facts, expected = site.score_all(), site.expected_objects()
    assert facts["scored"] == 0 and site.list_objects() == expected
    assert facts["dicom_objects_written"] == len(expected) - 3
    assert {path: path.stat().st_mtime_ns for path in times} == times, "an object was written twice"
    bundles = site.bundles.read_bytes()

    again = site.score_all()
    assert again["dicom_objects_written"] == 0 and again["dicom_objects"] == facts["dicom_objects"]
    assert site.list_objects() == expected and site.bundles.read_bytes() == bundles
    forced = site.score_all(force=True)
    assert forced["dicom_objects_written"] == len(expected) and site.list_objects().keys() == expected.keys()


def test_reports_of_scored_films_need_no_second_scoring(site: Site) -> None:
    """Pictures do: they need the maps of the forward pass that gave the probabilities."""
    assert site.score()["scored"] == 11
    facts = site.score(dicom_out=str(site.objects), dicom_objects=("sr",))
    assert (facts["scored"], facts["dicom_objects"]) == (0, {"sr": 6})
    (site.folder / "corpus" / "year" / "5.dcm").unlink()
    facts = site.score(dicom_out=str(site.objects))
    assert facts["scored"] == 10 and facts["dicom_objects"]["sr"] == 5 and facts["dicom_objects"]["sc"] > 0
    assert facts["dicom_objects_written"] == facts["dicom_objects"]["sc"]


def test_changed_file_has_no_objects(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lost its name, or became another film, after it was scored."""
    exports = score.write_exports

    def write_exports(*arguments: Any) -> Any:
        (site.folder / "corpus" / "year" / "5.dcm").unlink()
        write_files(site.folder / "corpus", {"year/6.dcm": FILMS["year/1.dcm"]})
        return exports(*arguments)

    monkeypatch.setattr(score, "write_exports", write_exports)
    facts = site.score_all()
    assert facts["films"] == 4 and facts["without_objects"]["no longer readable"] == 1
    assert facts["without_objects"]["changed since it was scored"] == 1


@pytest.mark.parametrize(("key", "package"), [("dicom_out", "highdicom"), ("fhir_out", "fhir.resources")])
def test_stops_before_any_work_without_its_packages(
    site: Site, key: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"score.{key} needs {package}: pip install --group gateway"):
        site.score(**{key: str(site.objects)})
    assert not (site.folder / "out").exists()


def test_objects_must_not_lie_in_the_corpus(site: Site) -> None:
    with pytest.raises(UserError, match=r"score\.dicom_out=.*/corpus/results lies in the corpus"):
        site.score(dicom_out=str(site.folder / "corpus" / "results"))


@pytest.mark.slow
def test_writes_into_a_bucket(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.folder / "s3").mkdir()
    with start_s3_server(site.folder / "s3", "xray") as s3:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        outs: dict[str, Any] = {
            "dicom_out": "s3://xray/results/",
            "dicom_objects": ALL,
            "fhir_out": "s3://xray/results.ndjson",
        }
        facts = site.score(**outs)
        assert site.score(**outs)["dicom_objects_written"] == 0
        keys = {key.removeprefix("results/"): key for key in s3.keys("results/")}
        expected = site.expected_objects()
        read = {name: s3.client().get_object(Bucket="xray", Key=key)["Body"].read() for name, key in keys.items()}
        lines = s3.client().get_object(Bucket="xray", Key="results.ndjson")["Body"].read().splitlines()
    assert read == expected and facts["dicom_objects_written"] == len(expected)
    assert lines == site.expected_bundles()
