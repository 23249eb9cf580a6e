"""A hospital's archive on loopback: it is searched by QIDO-RS, and gives films by WADO-RS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from pydicom import Dataset
from starlette.responses import JSONResponse, Response

from tests.serve.support.http_server import run_server
from tests.support.dicom import written

PATIENT = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "StudyDate", "StudyTime")
NAMES = (*PATIENT, "SeriesInstanceUID", "Modality")


@dataclass
class WebArchive:
    """What it has, and how it behaves. status: of its answers. requests: what it was asked, addresses without hosts."""

    films: list[Dataset] = field(default_factory=list)
    url: str = ""
    status: int = 200
    token: str | None = None
    sends_other: list[Dataset] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def retrieved(self) -> int:
        return len([one for one in self.requests if "/instances/" in one])

    def search_series(self, request: Request) -> Response:
        asked = request.query_params
        found = [film for film in self.films if film.PatientID == asked["PatientID"]]
        found = [film for film in found if film.Modality == asked["Modality"]]
        series = [*{film.SeriesInstanceUID: film for film in found}.values()]
        return self._answer(series[int(asked["offset"]) :][:2], NAMES)  # two a page, whatever is asked for

    def search_instances(self, study: str, series: str) -> Response:
        return self._answer(self._of(study, series), ("SOPClassUID", "SOPInstanceUID"))

    def retrieve(self, study: str, series: str, instance: str) -> Response:
        (film,) = self.sends_other or [film for film in self._of(study, series) if film.SOPInstanceUID == instance]
        body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + written(film) + b"\r\n--edge--\r\n"
        return Response(body, media_type='multipart/related; type="application/dicom"; boundary=edge')

    def refuse(self, request: Request) -> Response | None:
        self.requests.append(str(request.url).removeprefix(self.url))
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=401)
        return None if self.status == 200 else Response("of PAT-1", status_code=self.status)

    def _of(self, study: str, series: str) -> list[Dataset]:
        return [one for one in self.films if (one.StudyInstanceUID, one.SeriesInstanceUID) == (study, series)]

    def _answer(self, films: list[Dataset], names: tuple[str, ...]) -> Response:
        found = []
        for film in films:
            answer = Dataset()
            for name in names:
                if name in film:
                    setattr(answer, name, film[name].value)
            found.append(answer.to_json_dict())
        return JSONResponse(found, media_type="application/dicom+json")


@contextmanager
def run_archive(archive: WebArchive) -> Iterator[WebArchive]:
    """Listens while the block runs."""
    app = FastAPI()

    @app.middleware("http")
    async def refuse(request: Request, proceed: Any) -> Response:
        return archive.refuse(request) or await proceed(request)

    app.add_api_route("/web/series", archive.search_series)
    app.add_api_route("/web/studies/{study}/series/{series}/instances", archive.search_instances)
    app.add_api_route("/web/studies/{study}/series/{series}/instances/{instance}", archive.retrieve)
    with run_server(app) as (host, port):
        archive.url = f"http://{host}:{port}/web"
        yield archive
