"""The gateway's tables: films that it received, and what goes out about them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from serve.db.models import SHA256, Base, Json, UtcTime

UID = 64  # characters (PS3.5 Section 9.1)
UUID = 36  # characters


class FilmRow(Base):
    """A film and what became of it. Whose it is stands in its file alone.

    film_id: `chestai.results.film.film_id_of`. patient_key, accession_key: keyed hashes, to search by. image_id: at the
    endpoint; null if it was kept out. result: `serve.gateway.films.StoredResult`. reason, detail: why it was kept out.
    revision: of the result, one more for each change of its reviews. reviews: how many there were at the last one.
    prior: whether the archive gave it to be compared with, so that nothing goes out about it.
    """

    __tablename__ = "films"

    film_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    sop_instance: Mapped[str] = mapped_column(String(UID), index=True)
    study: Mapped[str] = mapped_column(String(UID), index=True)
    patient_key: Mapped[str | None] = mapped_column(String(SHA256), index=True)
    accession_key: Mapped[str | None] = mapped_column(String(SHA256), index=True)
    image_id: Mapped[str | None] = mapped_column(String(SHA256), index=True)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    reason: Mapped[str | None] = mapped_column(String(100))
    detail: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(Integer)
    reviews: Mapped[int] = mapped_column(Integer)
    prior: Mapped[bool] = mapped_column(Boolean, default=False, server_default=sql("false"))
    received_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    done_at: Mapped[datetime] = mapped_column(UtcTime)


class RevisionRow(Base):
    """What reviewers said of a film when they made a revision: see `serve.gateway.db.revisions`. The first has none."""

    __tablename__ = "film_revisions"

    film_id: Mapped[str] = mapped_column(ForeignKey("films.film_id"), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    reviews: Mapped[list[dict[str, Any]]] = mapped_column(Json)


class ResourceRow(Base):
    """A FHIR resource that tells something of a film, and can be made from it again.

    resource_id: `serve.gateway.fhir.names`. kind: its type. revision: of the film. lasting: the identifier of ours
    that it shares with its other revisions. finding: whether it is about a finding, which `flag_only` hides.
    """

    __tablename__ = "fhir_resources"

    resource_id: Mapped[str] = mapped_column(String(UUID), primary_key=True)
    film_id: Mapped[str] = mapped_column(ForeignKey("films.film_id"), primary_key=True, index=True)
    kind: Mapped[str] = mapped_column(String(20))
    revision: Mapped[int] = mapped_column(Integer)
    lasting: Mapped[str | None] = mapped_column(String(UUID), index=True)
    finding: Mapped[bool] = mapped_column(Boolean)

    __table_args__ = (Index("fhir_resources_of_kind", "kind", "resource_id"),)


class DeliveryRow(Base):
    """Something that goes to a destination: the order of `number` is the order of sending within a study.

    kind: sr, sc, seg, fhir or hl7. state: waiting, sent, committed or dead. due_at: not to be tried before. error: of
    the last attempt. commitment, asked_at: the transaction UID of the latest storage commitment request, and its time.
    """

    __tablename__ = "deliveries"

    delivery_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    film_id: Mapped[str] = mapped_column(ForeignKey("films.film_id"), index=True)
    study: Mapped[str] = mapped_column(String(UID))
    destination: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    revision: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(20))
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(UtcTime)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcTime)
    commitment: Mapped[str | None] = mapped_column(String(UID), index=True)
    asked_at: Mapped[datetime | None] = mapped_column(UtcTime)

    __table_args__ = (Index("deliveries_queue", "destination", "state", "number"),)


class PriorRequestRow(Base):
    """A reader's request for earlier films of the patient of an image, from the archive.

    state: waiting, done or failed. films: how many there are here by it. detail: what else there is to say, in words.
    """

    __tablename__ = "prior_requests"

    image_id: Mapped[str] = mapped_column(String(SHA256), primary_key=True)
    requested_by: Mapped[str] = mapped_column(String(200))
    requested_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    state: Mapped[str] = mapped_column(String(20))
    films: Mapped[int] = mapped_column(Integer)
    detail: Mapped[str | None] = mapped_column(Text)
    done_at: Mapped[datetime | None] = mapped_column(UtcTime)
