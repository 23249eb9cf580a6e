"""The gateway's parts, put together: the receiver, and a thread for each of its other tasks."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from chestai.config.gateway import Gateway, Priors
from chestai.config.schema import Config
from chestai.imaging.sandbox import Sandbox
from chestai.results.dicom.film_header import silence_pydicom
from chestai.results.dicom.installation import load_device
from serve.db.audit import AuditEvent
from serve.db.database import Database
from serve.db.store import Store, state_folder
from serve.gateway.commitment.reports import CommitmentReports, list_titles
from serve.gateway.commitment.requests import CommitmentRequests
from serve.gateway.db.retention import FilmRetention
from serve.gateway.dispatch.dispatcher import Dispatcher
from serve.gateway.dispatch.result_files import ResultFiles
from serve.gateway.dispatch.transmission import Transmission
from serve.gateway.dispatch.verdicts import VerdictWatch
from serve.gateway.intake.endpoint import EndpointClient
from serve.gateway.intake.folder import Intake, gateway_folder
from serve.gateway.intake.receiver import Receiver
from serve.gateway.intake.scoring import Scoring
from serve.gateway.priors.archive import Archive
from serve.gateway.priors.dicomweb import DicomWeb
from serve.gateway.priors.query_retrieve import QueryRetrieve
from serve.gateway.priors.requests import PriorRequests
from serve.gateway.priors.retrieval import Retrievals
from serve.gateway.senders.tls import make_client_tls
from serve.storage.pseudonyms import load_pseudonyms

STOP_S = 30.0  # for what is under way
SILENCED = ("pynetdicom", "dicomweb_client", "urllib3")  # they log associations, and addresses with a patient's ID


Task = tuple[str, Callable[[threading.Event], None]]  # a thread's name, and what it runs until the event is set


@contextmanager
def running(config: Config) -> Iterator[Receiver]:
    """Runs the gateway until the end of the block, and yields its receiver.

    Raises:
        UserError: The config names something that cannot be used.
        OSError: The folder is not writable.
    """
    silence_pydicom()
    for name in SILENCED:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings, folder, priors = config.gateway, gateway_folder(config), config.gateway.priors
    intake, store, stop = Intake(folder), Store(config), threading.Event()
    reports = CommitmentReports(settings, store.database, list_titles(settings))
    language, device = config.report.outgoing, load_device(str(state_folder(config) / "device"))
    files = ResultFiles(folder / "out", device, language)
    retrievals = None if priors is None else Retrievals(settings.dicom.ae_title, priors.ae_title)
    tasks: list[Task] = []
    with (
        closing(store),
        closing(Sandbox(2)) as sandbox,
        EndpointClient(settings.endpoint, settings.key) as endpoint,
        closing(Receiver(settings.dicom, intake, _audit(store), reports, retrievals)) as receiver,
    ):
        pseudonyms = load_pseudonyms(config)
        scoring = Scoring(settings, intake, store.database, endpoint, files, pseudonyms, sandbox)
        verdicts = VerdictWatch(settings, store.database, intake, files, pseudonyms)
        tasks += [("scoring", scoring.run), ("verdicts", verdicts.run)]
        tasks += _list_senders(settings, store.database, intake, files, language)
        if priors is not None and retrievals is not None:
            archive = _make_archive(settings, priors, intake)
            asked = PriorRequests(
                settings, priors.studies, archive, store.database, intake, retrievals, store.save_events
            )
            tasks.append(("priors", asked.run))
        if config.state.retention_days is not None:
            retention = FilmRetention(store.database, intake, files, config.state.retention_days)
            tasks.append(("retention", retention.run))
        threads = [threading.Thread(target=run, args=(stop,), name=name, daemon=True) for name, run in tasks]
        for thread in threads:
            thread.start()
        try:
            yield receiver
        finally:
            stop.set()
            for thread in threads:
                thread.join(STOP_S)


def _list_senders(
    settings: Gateway, database: Database, intake: Intake, files: ResultFiles, language: str | None
) -> list[Task]:
    """The tasks of each destination."""
    tasks: list[Task] = []
    for name, destination in settings.destinations.items():
        tls = make_client_tls(f"gateway.destinations.{name}", destination)
        way = Transmission(destination, settings.dicom.ae_title, database, intake, files, tls, language)
        tasks.append((f"to {name}", Dispatcher(name, settings, database, way.send).run))
        if destination.commitment:
            tasks.append((f"commitment of {name}", CommitmentRequests(name, settings, database, way.peer).run))
    return tasks


def _make_archive(settings: Gateway, priors: Priors, intake: Intake) -> Archive:
    if priors.kind == "dicom":
        return QueryRetrieve(priors, settings.dicom.ae_title)
    return DicomWeb(priors, intake, settings.dicom.max_film_mb * 2**20)


def _audit(store: Store) -> Callable[[str, str, bool], None]:
    def note(caller: str, film_id: str, is_new: bool) -> None:
        event = AuditEvent(actor=f"AE {caller}", action="film.received", object=film_id, detail={"new": is_new})
        store.save_events(event)

    return note
