"""The newest images that the endpoint scored itself, in memory, to be searched beside the index."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from chestai.retrieval.index_table import facts_schema
from chestai.retrieval.segment import ExactSegment, make_segment
from serve.db.database import Database
from serve.db.models import ImageRow, PredictionRow
from serve.search.embeddings import EmbeddingRow

MAX_IMAGES = 20_000  # 40 MB with 1,024 numbers an embedding; older images belong into the index
BATCH_SIZE = 500  # images per query


class OwnImages:
    """A segment of the images whose newest embedding is of a model version, as of the last refresh."""

    def __init__(self, database: Database, version: int, findings: Sequence[str]) -> None:
        """Loads them. findings: of the version. Raises DBAPIError: The database is down."""
        self._database, self._version, self._findings = database, version, tuple(findings)
        self._facts: pa.Table = facts_schema(self._findings).empty_table()
        self._vectors: list[NDArray[np.float16]] = []
        self._thumbnails: list[bytes] = []
        self._marks: list[tuple[str, datetime]] = []
        self._image_ids: frozenset[str] = frozenset()
        self.segment: ExactSegment | None = None
        self.refresh()

    def refresh(self) -> None:
        """Takes over what was scored since, and drops what was deleted. Raises DBAPIError as the constructor."""
        newest = (
            select(EmbeddingRow.image_id, EmbeddingRow.at)
            .where(EmbeddingRow.model_version == self._version)
            .order_by(EmbeddingRow.at.desc(), EmbeddingRow.image_id)
            .limit(MAX_IMAGES)
        )
        with self._database.read_session() as session:
            marks = {(image_id, at) for image_id, at in session.execute(newest)}
            kept = [place for place, mark in enumerate(self._marks) if mark in marks]
            missing = sorted(image_id for image_id, _ in marks - {*self._marks})
            if not missing and len(kept) == len(self._marks):
                return
            batches = [missing[start : start + BATCH_SIZE] for start in range(0, len(missing), BATCH_SIZE)]
            added = [row for batch in batches for row in self._load(session, batch)]
        self._keep(kept)
        self._add(added)
        self._image_ids = frozenset(image_id for image_id, _ in self._marks)
        segment = None
        if self._marks:
            segment = make_segment(self._findings, self._facts, np.stack(self._vectors), self._thumbnails)
        self.segment = segment  # at once, for searches may run

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._image_ids

    def _load(self, session: Session, image_ids: Sequence[str]) -> list[tuple[EmbeddingRow, ImageRow, PredictionRow]]:
        is_of_version = PredictionRow.model_version == EmbeddingRow.model_version
        rows = session.execute(
            select(EmbeddingRow, ImageRow, PredictionRow)
            .join(ImageRow, ImageRow.image_id == EmbeddingRow.image_id)
            .join(PredictionRow, (PredictionRow.image_id == EmbeddingRow.image_id) & is_of_version)
            .where(EmbeddingRow.image_id.in_(image_ids), EmbeddingRow.model_version == self._version)
        )
        return [(embedding, image, prediction) for embedding, image, prediction in rows]

    def _keep(self, places: Sequence[int]) -> None:
        self._facts = self._facts.take(pa.array(places, pa.int64()))
        self._vectors = [self._vectors[place] for place in places]
        self._thumbnails = [self._thumbnails[place] for place in places]
        self._marks = [self._marks[place] for place in places]

    def _add(self, rows: Sequence[tuple[EmbeddingRow, ImageRow, PredictionRow]]) -> None:
        facts = [self._describe(image, prediction) for _, image, prediction in rows]
        added = pa.Table.from_pylist(facts, facts_schema(self._findings))
        self._facts = pa.concat_tables([self._facts, added]).combine_chunks()
        for embedding, _, _ in rows:
            self._vectors.append(np.frombuffer(embedding.embedding, "<f2"))
            self._thumbnails.append(embedding.thumbnail)
            self._marks.append((embedding.image_id, embedding.at))

    def _describe(self, image: ImageRow, prediction: PredictionRow) -> dict[str, Any]:
        """A row of `facts_schema`, without patients: the database itself knows whose images are whose."""
        return {
            "sha256": image.image_id,
            "image_id": image.file_name or image.image_id,
            **{name: getattr(image, name) for name in ("source", "view", "sex", "age_years", "split")},
            "bucket": prediction.bucket,
            "triage_score": prediction.score,
            **{f"prob_{finding}": prediction.probabilities.get(finding) for finding in self._findings},
        }
