"""Retention of files without a row: what a crash or an earlier purge left beside the database."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pyarrow import fs
from sqlalchemy import select

from chestai.config.schema import Config
from chestai.lake.files import resolve
from chestai.lake.lake import Lake
from serve.db.audit import AuditEvent, append_event
from serve.db.database import Database
from serve.db.models import ImageRow, JobRow
from serve.db.outbox import REJECTED
from serve.db.store import outbox_folder
from serve.storage.image_store import ImageStore

JOBS_FOLDER = "jobs"  # of the lake: `jobs/<job_id>/` holds a job's scores.csv and status.json

JOB_ID = re.compile(r"[0-9a-f-]{36}")


@dataclass(frozen=True)
class LeftoverCounts:
    """Deleted files.

    unrecorded_images: kept images whose record was never written. job_folders: of jobs that are purged.
    rejected_files: writes of a day that the database rejected.
    """

    unrecorded_images: int = 0
    job_folders: int = 0
    rejected_files: int = 0


class Leftovers:
    """The files that the endpoint keeps beside its database."""

    def __init__(self, config: Config) -> None:
        self._lake, self._outbox = Lake(config.lake), outbox_folder(config)
        self._images = ImageStore(self._lake)

    def purge(self, database: Database, before: datetime, actor: str) -> LeftoverCounts:
        """Deletes files that were last written before and have no row; an audit event tells how many.

        Raises:
            OSError: A file cannot be deleted.
            DBAPIError: The database is down.
        """
        counts = LeftoverCounts(
            unrecorded_images=self._purge_images(database, before),
            job_folders=self._purge_jobs(database, before),
            rejected_files=self._purge_rejected(before),
        )
        if counts != LeftoverCounts():
            detail = {"before": before.isoformat(), **asdict(counts)}
            with database.write_session() as session:
                append_event(session, AuditEvent(actor=actor, action="purge", detail=detail))
        return counts

    def _purge_images(self, database: Database, before: datetime) -> int:
        count = 0
        for image_ids in self._images.list_old(before):
            with database.read_session() as session:
                recorded = set(session.scalars(select(ImageRow.image_id).where(ImageRow.image_id.in_(image_ids))))
            for image_id in sorted({*image_ids} - recorded):
                self._images.remove_old(image_id, before)
                count += 1
        return count

    def _purge_jobs(self, database: Database, before: datetime) -> int:
        filesystem, root = resolve(self._lake.uri(JOBS_FOLDER))
        entries = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        latest: dict[str, datetime] = {}  # by job ID
        for entry in entries:
            if entry.type == fs.FileType.File:
                job_id = entry.path.removeprefix(root).strip("/").split("/")[0]
                latest[job_id] = max(latest.get(job_id, entry.mtime), entry.mtime)
        with database.read_session() as session:
            recorded = set(session.scalars(select(JobRow.job_id)))
        old = [
            job_id
            for job_id, mtime in latest.items()
            if JOB_ID.fullmatch(job_id) and mtime < before and job_id not in recorded
        ]
        for job_id in old:
            filesystem.delete_dir(f"{root}/{job_id}")
        return len(old)

    def _purge_rejected(self, before: datetime) -> int:
        old = [
            file
            for file in self._outbox.glob(f"{REJECTED}*")
            if datetime.fromtimestamp(file.stat().st_mtime, UTC) < before
        ]
        for file in old:
            file.unlink(missing_ok=True)
        return len(old)
