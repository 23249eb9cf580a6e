"""Films and verdicts as the gateway records them, without a wire and without a model."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI

from chestai.config.gateway import Gateway
from chestai.results.dicom.film_header import read_header
from chestai.results.dicom.instance import Device
from chestai.results.film import Film, film_id_of
from serve.api.services import Services
from serve.db.database import Database
from serve.db.records import Review, Verdict
from serve.db.reviews import record_review
from serve.gateway.db.films import StoredResult, add_film, make_film_row
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.verdicts import VerdictWatch
from serve.gateway.fhir.index import index_result
from serve.gateway.intake.folder import Intake
from serve.storage.pseudonyms import Pseudonyms
from tests.support.dicom import EIGHT, a_file

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
VERSION = 3
FINDINGS = (("Cardiomegaly", 0.83, 0.4), ("Hernia", 0.001, None))
RESULT = StoredResult(
    findings=FINDINGS, bucket="urgent", score=0.83, model="densenet", version=VERSION, at=AT, synthetic=False
)


@dataclass
class Recorded:
    """The gateway's records of an endpoint. number: of films so far."""

    app: FastAPI
    number: int = 0

    @property
    def database(self) -> Database:
        services: Services = self.app.state.services
        return services.state.store.database

    @property
    def intake(self) -> Intake:
        services: Services = self.app.state.services
        assert services.intake is not None
        return services.intake

    @property
    def pseudonyms(self) -> Pseudonyms:
        services: Services = self.app.state.services
        return services.state.pseudonyms

    @property
    def files(self) -> ResultFiles:
        return ResultFiles(self.intake.folder / "out", Device("ChestAI", "1.2.3"))

    def add(self, patient: str, study: str, **elements: Any) -> str:
        """Records the result of a film, each received a minute after the one before. Returns the film's ID."""
        self.number += 1
        names = {"PatientID": patient, "StudyInstanceUID": study, "SOPInstanceUID": f"1.2.826.7.{self.number}"}
        about = {"SeriesInstanceUID": f"{study}.1", "AccessionNumber": f"ACC-{self.number}", "PatientName": "Doe^Jane"}
        data = a_file(EIGHT, 8, **{**names, **about, **elements})
        film = Film.from_header(read_header(data))
        film_id, received_at = film_id_of(film.sop_instance), AT + timedelta(minutes=self.number)
        self.intake.add(film.sop_instance, data)
        self.intake.settle(film_id)
        outcome = {"image_id": film_id, "result": RESULT.model_dump(mode="json")}
        with self.database.write_session() as session:
            add_film(session, make_film_row(film_id, film, self.pseudonyms, received_at, **outcome))
            index_result(session, film_id, RESULT.attach(film), self.pseudonyms)
        return film_id

    def review(self, film_id: str, verdict: Verdict, finding: str = "Cardiomegaly", reviewer: str = "rita") -> None:
        """Records a verdict on a film, and the revision that it makes."""
        review = Review(image_id=film_id, model_version=VERSION, finding=finding, verdict=verdict, reviewer=reviewer)
        with self.database.write_session() as session:
            record_review(session, review)
        watch = VerdictWatch(Gateway(), self.database, self.intake, self.files, self.pseudonyms)
        assert watch.queue_revisions() == 1
