"""Writes what was found on the DICOM films of a scored corpus: DICOM objects and FHIR Bundles.

All of it comes from the ledger and the films' headers: it does not matter where and when a film was scored, and what is
written again is the same. DICOM objects that are there are not written again, so that a run that was killed goes on.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from chestai.cli.console import Screen
from chestai.config.schema import Config, Score
from chestai.errors import UserError
from chestai.imaging.sandbox import Sandbox
from chestai.lake.atomic_write import atomic_write
from chestai.lake.files import locate
from chestai.lake.lake import Lake
from chestai.model.registry import RegisteredModel
from chestai.results.dicom.film_header import silence_pydicom
from chestai.results.fhir.bundle import build_transaction, to_json
from chestai.results.fhir.checks import check_resource
from chestai.results.fhir.resources import build_resources
from chestai.results.standard_codes import FHIR_CODES
from pipelines.scoring.corpus import Corpus
from pipelines.scoring.ledger import Ledger
from pipelines.scoring.objects.film_list import FilmList
from pipelines.scoring.objects.film_reader import ReadFilm, read_film
from pipelines.scoring.objects.scored_contents import ScoredContents

THREADS = 8  # films at a time, so that a store may be slow; each takes some 50 MB

Write = Callable[[ReadFilm], Mapping[str, bool] | None]  # as `object_writer.ObjectWriter.write`


@dataclass
class ObjectCounts:
    """What became of the scored files of a corpus; each is in one of the first three.

    Attributes:
        films: Films whose headers say which they are.
        twins: Further files of these films.
        without: Why files have no objects -> how many.
        objects: DICOM objects that are there, by kind.
        written: Those of them that were written now.
        failed: Films whose DICOM objects cannot be made.
        bundles: FHIR Bundles.
        invalid: Films whose FHIR Bundle would be invalid.
    """

    films: int = 0
    twins: int = 0
    without: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    written: int = 0
    failed: int = 0
    bundles: int = 0
    invalid: int = 0

    def describe(self, settings: Score) -> dict[str, Any]:
        """Facts for the summary."""
        facts: dict[str, Any] = {"films": self.films, "twin_files": self.twins}
        facts["without_objects"] = dict(sorted(self.without.items()))
        if settings.dicom_out is not None:
            facts |= {"dicom_objects": dict(self.objects), "dicom_objects_written": self.written}
        if settings.fhir_out is not None:
            facts["fhir_bundles"] = self.bundles
        return facts

    def report(self, settings: Score, screen: Screen) -> None:
        """Says what is not there."""
        forms = {"DICOM objects": settings.dicom_out, "FHIR resources": settings.fhir_out}
        missing = " and no ".join(name for name, out in forms.items() if out is not None)
        for reason, count in sorted(self.without.items()):
            screen.say(f"{reason}: {count:,} films have no {missing}")
        if self.failed:
            screen.say(f"{self.failed:,} films have DICOM objects that cannot be made")
        if self.invalid:
            screen.say(f"{self.invalid:,} films have no FHIR resources: they would be invalid")


def write_objects(
    config: Config, model: RegisteredModel, ledger: Ledger, corpus: Corpus, screen: Screen
) -> ObjectCounts:
    """Writes `score.dicom_out` and `score.fhir_out`, and says which films are not in them.

    Raises:
        UserError: Something cannot be written.
    """
    silence_pydicom()
    settings, counts = config.score, ObjectCounts()
    contents = ScoredContents.of(ledger, model, corpus)
    with closing(FilmList()) as films:
        _read_films(config, contents, films, counts, screen)
        if settings.fhir_out is not None:
            try:
                _write_bundles(films, settings.fhir_out, config.report.outgoing, counts)
            except (OSError, ValueError, pa.ArrowException) as error:
                raise UserError(f"score.fhir_out={settings.fhir_out} cannot be written: {error}") from error
    counts.report(settings, screen)
    return counts


def _read_films(
    config: Config, contents: ScoredContents, films: FilmList, counts: ObjectCounts, screen: Screen
) -> None:
    """Reads films, a few at a time, lists each of them once, and writes its DICOM objects if they are wanted."""
    cores = len(os.sched_getaffinity(0))
    with (
        closing(Sandbox(min(cores, THREADS))) as sandbox,
        ThreadPoolExecutor(THREADS) as threads,
        screen.progress("objects", len(contents), "films") as progress,
    ):
        write, stream, done = _make_writer(config, sandbox), iter(contents), 0
        while some := list(itertools.islice(stream, THREADS)):
            fresh: list[ReadFilm] = []
            for content, film in zip(some, threads.map(read_film, some), strict=True):
                if isinstance(film, str):
                    counts.without[film] += content.files
                elif films.add(film.result):
                    fresh.append(film)
                    counts.films, counts.twins = counts.films + 1, counts.twins + content.files - 1
                else:
                    counts.twins += content.files
            for written in threads.map(write, fresh) if write else ():
                counts.failed += written is None
                counts.objects.update((written or {}).keys())
                counts.written += sum((written or {}).values())
            done += len(some)
            progress.update(done)


def _make_writer(config: Config, sandbox: Sandbox) -> Write | None:
    """What writes the DICOM objects of a film; None if they are not wanted."""
    settings = config.score
    if settings.dicom_out is None:
        return None
    from chestai.results.dicom.installation import load_device  # here, for both import highdicom
    from pipelines.scoring.objects.object_writer import ObjectWriter

    device = load_device(Lake(config.lake).uri("state", "device"))
    folder, language = locate(settings.dicom_out), config.report.outgoing
    return ObjectWriter(folder, settings.dicom_objects, device, sandbox, config.force, language).write


def _write_bundles(films: FilmList, path: str, language: str | None, counts: ObjectCounts) -> None:
    """Writes a line for each film, the Bundle that the gateway sends of it."""
    with atomic_write(path) as part, part.open("wb") as file:
        for result in films:
            try:
                bundle = build_transaction(build_resources(result, codes=FHIR_CODES, language=language))
                check_resource(bundle)
            except ValueError:
                counts.invalid += 1
                continue
            file.write(to_json(bundle) + b"\n")
            counts.bundles += 1
