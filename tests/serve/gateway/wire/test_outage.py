"""A destination is away for an hour of the clock: then everything arrives, each once, in order within each study."""

import hashlib
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import select

from chestai.config.gateway import Destination, Gateway
from chestai.results.dicom.instance import Device
from serve.db.database import Database
from serve.db.models import AuditRow
from serve.db.records import Review
from serve.db.reviews import record_review
from serve.gateway.db.models import DeliveryRow, FilmRow
from serve.gateway.dispatch.dispatcher import Dispatcher
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.transmission import Transmission
from serve.gateway.dispatch.verdicts import VerdictWatch
from serve.gateway.intake.endpoint import EndpointClient, Scored
from serve.gateway.intake.folder import Intake
from serve.gateway.intake.scoring import Scoring
from serve.storage.pseudonyms import Pseudonyms
from tests.serve.gateway.recorded import RESULT
from tests.serve.gateway.senders.mllp_server import MllpReceiver, run_receiver
from tests.serve.support.clock import Clock
from tests.serve.support.http_server import find_port
from tests.support.dicom import EIGHT, a_file

AWAY, NEAR = "ris", "archive"  # destinations: one that is away, and one that is not
STUDIES, FILMS = 3, 3  # films of each
HOUR_S, STEP_S = 3600.0, 30.0
DEVICE = Device("ChestAI", "1.2.3")


class FakeEndpoint:
    """Scores every film alike."""

    def score(self, data: bytes, prior: bool) -> Scored:
        return Scored(hashlib.sha256(data).hexdigest(), RESULT, None)


class Hospital:
    """A gateway without threads, whose parts do one step when they are told to."""

    def __init__(self, database: Database, folder: Path, ports: dict[str, int], clock: Clock, **settings: Any) -> None:
        to = {name: Destination(kind="hl7", address=f"127.0.0.1:{port}") for name, port in ports.items()}
        self.clock, self.database, self.intake = clock, database, Intake(folder)
        config, files, names = Gateway(destinations=to, **settings), ResultFiles(folder, DEVICE), Pseudonyms(bytes(32))
        endpoint, nobody = cast(EndpointClient, FakeEndpoint()), cast(Any, None)  # no picture is decoded
        self.scoring = Scoring(config, self.intake, database, endpoint, files, names, nobody)
        self.verdicts = VerdictWatch(config, database, self.intake, files, names)
        self.dispatchers = {
            name: Dispatcher(
                name, config, database, Transmission(one, "CHESTAI", database, self.intake, files, None).send
            )
            for name, one in to.items()
        }

    def take_films(self) -> None:
        """Films of several studies come in, one study after the other in turn."""
        for number in range(STUDIES * FILMS):
            study, instance = f"1.2.{number % STUDIES}", f"1.2.826.7.{number}"
            data = a_file(EIGHT, 8, SOPInstanceUID=instance, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1")
            self.intake.add(instance, data)
            (film,) = self.intake.waiting()
            self.scoring.process(film)

    def review_first(self) -> str:
        """A reader speaks of the first film. Returns its study."""
        with self.database.write_session() as session:
            row = session.scalars(select(FilmRow).where(FilmRow.sop_instance == "1.2.826.7.0")).one()
            image_id, study = str(row.image_id), row.study
            review = Review(image_id=image_id, model_version=3, finding="Hernia", verdict="FN", reviewer="rita")
            record_review(session, review)
        assert self.verdicts.queue_revisions() == 1
        return study

    def send_for(self, seconds: float) -> None:
        """Lets the destinations' threads work for so long by the clock."""
        end = self.clock.at + timedelta(seconds=seconds)
        while self.clock.at < end:
            for dispatcher in self.dispatchers.values():
                dispatcher.send_due(threading.Event())
            self.clock.move(STEP_S)

    def load(self, destination: str) -> list[DeliveryRow]:
        """What was queued for a destination, in the order of sending."""
        with self.database.read_session() as session:
            query = select(DeliveryRow).where(DeliveryRow.destination == destination)
            return list(session.scalars(query.order_by(DeliveryRow.number)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    clock.install(monkeypatch)
    return clock


def list_told(messages: list[str]) -> list[tuple[str, str, str]]:
    """Study, film and status of each message."""
    told = []
    for message in messages:
        segments = [segment.split("|") for segment in message.split("\r") if segment]
        facts = {one[3].split("^")[0]: one[5] for one in segments if one[0] == "OBX"}
        (request,) = [one for one in segments if one[0] == "OBR"]
        told.append((facts["study"], facts["film"], request[25]))
    return told


def test_after_an_hour_everything_arrives_once_and_in_order(database: Database, tmp_path: Path, clock: Clock) -> None:
    receiver = MllpReceiver(address=("", find_port()))
    with run_receiver(MllpReceiver()) as near:
        hospital = Hospital(database, tmp_path, {AWAY: receiver.address[1], NEAR: near.address[1]}, clock)
        hospital.take_films()
        hospital.send_for(HOUR_S / 2)
        study = hospital.review_first()
        hospital.send_for(HOUR_S / 2)
        waiting = hospital.load(AWAY)
        assert len(near.messages) == len(waiting) == STUDIES * FILMS + 1, "who is there waits for nobody"
        assert {row.state for row in waiting} == {"waiting"}
        assert 8 <= max(row.attempts for row in waiting) <= 12, "5 s, doubled up to 15 minutes"
        assert sum(row.attempts > 0 for row in waiting) == STUDIES, "the first of each study is tried, and no other"
        with run_receiver(receiver):
            hospital.send_for(HOUR_S / 2)
    assert {row.state for row in hospital.load(AWAY)} == {"sent"}
    told = list_told(receiver.messages)
    assert len(set(told)) == len(told) and sorted(told) == sorted(list_told(near.messages))
    for number in range(STUDIES):
        expected = [(f"1.2.826.7.{film}", "P") for film in range(number, STUDIES * FILMS, STUDIES)]
        expected += [("1.2.826.7.0", "F")] if f"1.2.{number}" == study else []
        assert [(film, status) for of, film, status in told if of == f"1.2.{number}"] == expected


@pytest.mark.parametrize("kind", ["sqlite"])
def test_what_is_away_for_too_long_is_given_up_and_not_before(database: Database, tmp_path: Path, clock: Clock) -> None:
    hospital = Hospital(database, tmp_path, {AWAY: find_port()}, clock, give_up_hours=2.0, max_retry_seconds=300.0)
    hospital.take_films()
    hospital.send_for(2 * HOUR_S)
    assert {row.state for row in hospital.load(AWAY)} == {"waiting"}
    hospital.send_for(600)
    assert {row.state for row in hospital.load(AWAY)} == {"dead"}
    with database.read_session() as session:
        given_up = list(session.scalars(select(AuditRow.object).where(AuditRow.action == "film.not_sent")))
    assert len(given_up) == len({*given_up}) == STUDIES * FILMS
