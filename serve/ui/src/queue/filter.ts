/** What the reader chose to see of the worklist, as it stands in the address. */
import { withQuery } from "../api/client";
import type { Bucket } from "../api/types";

export type Reviewed = "no" | "yes" | "all";

export interface Filter {
  bucket: Bucket | null;
  finding: string | null;
  split: string | null;
  /** Unread studies, unless the reader says otherwise or searches. */
  reviewed: Reviewed;
  search: string | null;
}

export const BUCKETS: Bucket[] = ["urgent", "soon", "routine"];
const REVIEWED: Reviewed[] = ["no", "yes", "all"];

export function readFilter(query: string): Filter {
  const given = new URLSearchParams(query);
  const search = given.get("search") || null;
  return {
    bucket: BUCKETS.find((bucket) => bucket === given.get("bucket")) ?? null,
    finding: given.get("finding") || null,
    split: given.get("split") || null,
    reviewed: REVIEWED.find((one) => one === given.get("reviewed")) ?? usual(search),
    search,
  };
}

/** The address of the queue with this filter; what is usual is left out. */
export function filterPath({ reviewed, ...filter }: Filter): string {
  return withQuery("/ui/", { ...filter, reviewed: reviewed === usual(filter.search) ? null : reviewed });
}

/** Whether the filter hides any unread study. */
export function isNarrow(filter: Filter): boolean {
  return Boolean(filter.bucket || filter.finding || filter.split || filter.search || filter.reviewed !== "no");
}

/** `refresh` if the page asks by itself; see `refreshMark`. */
export function pagePath(filter: Filter, cursor: string | null, limit: number, refresh: boolean): string {
  const { bucket, finding, split, search } = filter;
  const reviewed = { no: false, yes: true, all: null }[filter.reviewed];
  return withQuery("/studies", { bucket, finding, split, reviewed, search, limit, cursor, refresh: refresh || null });
}

function usual(search: string | null): Reviewed {
  return search ? "all" : "no";
}
