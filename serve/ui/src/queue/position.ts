/** Where the reader is in the queue, for the page of a study. */
import type { Study } from "../api/types";

export interface QueuePosition {
  /** The next study to read in the queue's order; null at its end. */
  next(): string | null;
  previous(): string | null;
  open(imageId: string): void;
  backToQueue(): void;
}

/** What the reader did in this tab. */
export interface Walk {
  /** Studies that were opened, in their order. */
  opened: string[];
  /** Studies that came into the list while another one was open: they are next if they are more urgent. */
  arrived: Set<string>;
}

/** The next study: what arrived above the open one, else what follows it, that nobody has read or reads now. */
export function findNext(rows: Study[], imageId: string, walk: Walk, reader: string | null): string | null {
  const place = rows.findIndex((row) => row.image_id === imageId);
  const isOpen = (row: Study) => row.image_id !== imageId && !row.reviewed_at && !isTaken(row, reader);
  const isNew = (row: Study) => walk.arrived.has(row.image_id) && !walk.opened.includes(row.image_id);
  const above = rows.slice(0, Math.max(place, 0)).find((row) => isOpen(row) && isNew(row));
  return (above ?? rows.slice(place + 1).find(isOpen))?.image_id ?? null;
}

/** The study that was open before this one, else the row above. */
export function findPrevious(rows: Study[], imageId: string, walk: Walk): string | null {
  const step = walk.opened.lastIndexOf(imageId);
  const place = rows.findIndex((row) => row.image_id === imageId);
  return walk.opened[step - 1] ?? rows[place - 1]?.image_id ?? null;
}

/** Whether another reader holds the study. */
export function isTaken(row: Study, reader: string | null): boolean {
  if (!row.claimed_by || row.claimed_by === reader) return false;
  return row.claimed_until === null || Date.parse(row.claimed_until) > Date.now();
}
