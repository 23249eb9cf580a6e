"""Embeddings of images that the endpoint scored, which are searched beside the index (`serve.search.own_images`)."""

import base64
from datetime import datetime
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, Field
from sqlalchemy import ForeignKey, Index, Integer, LargeBinary
from sqlalchemy.orm import Mapped, Session, mapped_column

from chestai.retrieval.index_table import normalise
from serve.db.database import serialise_writes
from serve.db.models import Base, UtcTime
from serve.db.records import ImageId, Record

Base64 = Annotated[str, Field(pattern="^[0-9A-Za-z+/]*=*$")]


class EmbeddingRow(Base):
    """The newest embedding of an image: of length 1, float16, little-endian. model_version: which computed it.

    thumbnail: of the network's input, see `chestai.imaging.thumbnail.shrink`.
    """

    __tablename__ = "embeddings"

    image_id: Mapped[str] = mapped_column(ForeignKey("images.image_id"), primary_key=True)
    model_version: Mapped[int] = mapped_column(Integer)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)
    thumbnail: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index("embeddings_newest", "model_version", "at"),)


class Embedding(Record):
    """An embedding as it waits in the outbox, see `EmbeddingRow`; the bytes in base64."""

    image_id: ImageId
    model_version: int
    embedding: Base64
    thumbnail: Base64
    at: AwareDatetime

    @classmethod
    def of(
        cls, image_id: str, model_version: int, vector: NDArray[np.floating], thumbnail: bytes, at: datetime
    ) -> Self:
        """Of a vector of any length, (D,)."""
        code = normalise(vector[None]).astype("<f2").tobytes()
        texts = {"embedding": code, "thumbnail": thumbnail}
        encoded = {name: base64.b64encode(data).decode() for name, data in texts.items()}
        return cls(image_id=image_id, model_version=model_version, at=at, **encoded)


def record_embedding(session: Session, embedding: Embedding) -> None:
    """Writes the embedding of a recorded image; of several, the newest by `at` is kept."""
    serialise_writes(session, embedding.image_id)
    row = session.get(EmbeddingRow, embedding.image_id)
    if row is None or row.at <= embedding.at:
        session.merge(
            EmbeddingRow(
                image_id=embedding.image_id,
                model_version=embedding.model_version,
                embedding=base64.b64decode(embedding.embedding),
                thumbnail=base64.b64decode(embedding.thumbnail),
                at=embedding.at,
            )
        )
