"""The gateway killed at random: no acknowledged film is lost, and none is scored or sent twice."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from chestai.results.film import film_id_of
from serve.db.models import PredictionRow
from serve.gateway.db.models import DeliveryRow, FilmRow
from tests.serve.gateway.pacs import Pacs, run_pacs
from tests.serve.gateway.site import Site, make_film, run_site, send_films, wait_for
from tests.serve.support.http_server import find_port
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

FILMS, KILLS, SENDERS = 200, 5, 4


@contextmanager
def gateway_process(site: Site, port: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m serve.gateway`, as somebody would start it. more: words of the command."""
    words = [
        f"lake={site.config.lake}",
        "cluster=laptop",
        f"gateway.endpoint={site.url}",
        f"gateway.dicom.port={port}",
        "gateway.dicom.callers=[MODALITY]",
        *more,
    ]
    process = subprocess.Popen([sys.executable, "-m", "serve.gateway", *words], cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_listening(port: int) -> bool:
    return any(one.laddr.port == port and one.status == "LISTEN" for one in psutil.net_connections("tcp"))


def send_until_acknowledged(port: int, films: list[Any], acknowledged: set[str], stop: threading.Event) -> None:
    """A modality: it sends each film again until it is acknowledged."""
    for film in films:
        while not stop.is_set():
            try:
                if send_films(port, film) == [0]:
                    acknowledged.add(film.SOPInstanceUID)
                    break
            except Exception:  # of a receiver that was killed meanwhile
                pass
            time.sleep(0.1)


def test_no_acknowledged_film_is_lost_and_none_counts_twice(tmp_path: Path) -> None:
    films = [make_film(number % 50) for number in range(FILMS)]
    port, pacs, acknowledged, stop = find_port(), Pacs(), set[str](), threading.Event()
    dice = random.Random(7)
    quick = ["gateway.retry_seconds=0.2", "gateway.max_retry_seconds=1"]
    with run_pacs(pacs), run_site(tmp_path, {}) as site:
        destination = f"{{kind: dicom, address: '127.0.0.1:{pacs.port}', ae_title: PACS, objects: [sr]}}"
        words = [*quick, f"gateway.destinations={{pacs: {destination}}}"]
        shares = [films[number::SENDERS] for number in range(SENDERS)]
        threads = [
            threading.Thread(target=send_until_acknowledged, args=(port, share, acknowledged, stop)) for share in shares
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(KILLS):
                with gateway_process(site, port, *words):
                    wait_for(lambda: is_listening(port), 60)
                    time.sleep(dice.uniform(0.5, 4.0))
            with gateway_process(site, port, *words):
                for thread in threads:
                    thread.join(300)
                wait_for(lambda: len(site.rows(FilmRow)) == FILMS, 300)
                wait_for(lambda: all(row.state == "sent" for row in site.rows(DeliveryRow)), 300)
        finally:
            stop.set()
    assert acknowledged == {film.SOPInstanceUID for film in films}
    found = site.rows(FilmRow)
    assert {row.film_id for row in found} == {film_id_of(instance) for instance in acknowledged}
    assert all(row.image_id and not row.reason for row in found)
    predictions = Counter(row.image_id for row in site.rows(PredictionRow))
    assert set(predictions.values()) == {1} and {row.image_id for row in found} == set(predictions)
    sent = {report.SOPInstanceUID for report in pacs.reports}
    assert len(sent) == FILMS == len(site.rows(DeliveryRow)), "a report that came twice has the same UID"
