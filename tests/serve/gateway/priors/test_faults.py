"""The gateway killed while it fetches priors: the request is taken up again, and no film is lost or doubled."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pydicom.uid import generate_uid

from serve.db.models import PredictionRow
from serve.gateway.db.models import FilmRow
from serve.gateway.intake.folder import gateway_folder
from tests.serve.gateway.priors.dicom_archive import TITLE, DicomArchive, run_archive
from tests.serve.gateway.priors.hospital import ask, list_priors, make_earlier, run_hospital, send_current
from tests.serve.gateway.site import MODALITY, Site, wait_for
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

STUDIES, FILMS, KILLS = 3, 8, 4  # films of each study


@contextmanager
def gateway_process(site: Site, archive: DicomArchive) -> Iterator[None]:
    """`python -m serve.gateway`, as somebody would start it, from when it listens until it is killed."""
    port = site.config.gateway.dicom.port
    words = [
        f"lake={site.config.lake}",
        "cluster=laptop",
        f"gateway.endpoint={site.url}",
        f"gateway.dicom.port={port}",
        f"gateway.dicom.callers=[{MODALITY},{TITLE}]",
        f"gateway.priors={{kind: dicom, address: '127.0.0.1:{archive.port}', ae_title: {TITLE}}}",
        "gateway.retry_seconds=0.2",
    ]
    process = subprocess.Popen([sys.executable, "-m", "serve.gateway", *words], cwd=ROOT)
    try:
        wait_for(lambda: any(one.laddr.port == port for one in psutil.net_connections("tcp")), 60)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_request_outlives_the_gateway(tmp_path: Path) -> None:
    days, dice = [f"20{20 + number}0102" for number in range(STUDIES)], random.Random(5)
    names = [(day, generate_uid(), generate_uid()) for day in days]
    films = [
        make_earlier(2 + FILMS * number + film, day, StudyInstanceUID=study, SeriesInstanceUID=series)
        for number, (day, study, series) in enumerate(names)
        for film in range(FILMS)
    ]
    archive = DicomArchive(films)
    with (
        run_archive(archive),
        run_hospital(tmp_path, kind="dicom", address=f"127.0.0.1:{archive.port}", ae_title=TITLE) as site,
    ):
        archive.destination = port = site.config.gateway.dicom.port
        with gateway_process(site, archive):
            image_id = send_current(site, port)
        ask(site, image_id)
        for _ in range(KILLS):
            with gateway_process(site, archive):
                time.sleep(dice.uniform(0.5, 2.0))
        with gateway_process(site, archive):
            wait_for(lambda: site.ask(f"/images/{image_id}/priors")["archive"]["state"] == "done", 120)
        assert site.ask(f"/images/{image_id}/priors")["archive"]["films"] == len(films)
        assert len(site.ask("/studies")["studies"]) == 1
    found = site.rows(FilmRow)
    assert sum(row.prior for row in found) == len(films) == len(found) - 1 == len(list_priors(site))
    assert {*Counter(row.image_id for row in site.rows(PredictionRow)).values()} == {1}
    assert len([*gateway_folder(site.config).glob("*/**/*.dcm")]) == len(films) + 1
