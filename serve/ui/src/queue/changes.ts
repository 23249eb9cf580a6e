/** What the newest first page says about the rows that the reader has before them. */
import type { Study } from "../api/types";

export interface Changes {
  /** Studies of the newest page that the list has not. */
  arrived: string[];
  /** Rows that the newest page should hold, and does not: read, or filtered out, since. */
  left: string[];
  /** Rows whose place in the order may be another. */
  moved: string[];
}

/** Compares the list with the newest first page of the same filter. */
export function findChanges(rows: Study[], head: Study[]): Changes {
  const shown = new Map(rows.map((row, index) => [row.image_id, index]));
  const newest = new Map(head.map((study) => [study.image_id, study]));
  const places = head.flatMap((study) => shown.get(study.image_id) ?? []);
  // A short page is the whole list; of a full one only the part is known that reaches to its last row.
  const end = places.length ? Math.max(...places) : rows.length;
  const covered = rows.slice(0, end);
  return {
    arrived: head.map((study) => study.image_id).filter((imageId) => !shown.has(imageId)),
    left: covered.filter((row) => !row.reviewed_at && !newest.has(row.image_id)).map((row) => row.image_id),
    moved: rows.filter((row) => isMoved(row, newest.get(row.image_id))).map((row) => row.image_id),
  };
}

/** The row with what the newest page says about readers; its place, score and bucket stay. */
export function refreshRow(row: Study, newest: Study | undefined): Study {
  if (!newest) return row;
  const { reviewed_at, claimed_by, claimed_until } = newest;
  return { ...row, reviewed_at: reviewed_at ?? row.reviewed_at, claimed_by, claimed_until };
}

function isMoved(row: Study, newest: Study | undefined): boolean {
  if (!newest) return false;
  return row.escalated !== newest.escalated || row.score !== newest.score || row.bucket !== newest.bucket;
}
