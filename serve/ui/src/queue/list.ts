/**
 * The rows of the queue. They stay as they were loaded: every 15 s the first page is read again beside them, and what
 * changed waits until the reader asks for it. Only who reads a study, and whether it was read, is updated in place.
 */
import { useInfiniteQuery, useQuery, useQueryClient, type InfiniteData, type QueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { request } from "../api/client";
import type { Study, StudyPage } from "../api/types";
import { findChanges, refreshRow, type Changes } from "./changes";
import { pagePath, type Filter } from "./filter";

const PAGE_SIZE = 100;
const REFRESH_MS = 15_000;

type Pages = InfiniteData<StudyPage, string | null>;

export interface QueueList {
  rows: Study[];
  isLoading: boolean;
  /** Of the first load, or of the newest refresh. */
  error: Error | null;
  /** When the newest answer came, in ms since 1970. */
  updatedAt: number;
  hasMore: boolean;
  isLoadingMore: boolean;
  loadMore: () => void;
  changes: Changes;
  /** Takes the newest order; reads on until the row in hand is there again. Returns what had arrived. */
  showChanges: (inHand: string | null) => Promise<string[]>;
  isShowing: boolean;
  retry: () => void;
}

export function useQueueList(filter: Filter, enabled: boolean): QueueList {
  const client = useQueryClient();
  const [isShowing, setShowing] = useState(false);
  const pages = useInfiniteQuery({
    queryKey: ["queue", filter],
    queryFn: async ({ pageParam, signal }) => {
      const page = await fetchPage(filter, pageParam, false, signal);
      if (pageParam === null) client.setQueryData(["head", filter], page);
      return page;
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.cursor,
    staleTime: Infinity,
    refetchOnMount: false,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    enabled,
  });
  const head = useQuery({
    queryKey: ["head", filter],
    queryFn: ({ signal }) => fetchPage(filter, null, true, signal),
    enabled: enabled && pages.isSuccess,
    staleTime: REFRESH_MS,
    refetchInterval: REFRESH_MS,
  });
  const loaded = useMemo(() => pages.data?.pages.flatMap((page) => page.studies) ?? [], [pages.data]);
  const rows = useMemo(() => refreshRows(loaded, head.data), [loaded, head.data]);
  const changes = useMemo(() => findChanges(rows, head.data?.studies ?? rows), [rows, head.data]);

  const showChanges = async (inHand: string | null) => {
    setShowing(true);
    try {
      const newest = await reload(client, filter, inHand, pages.data?.pages.length ?? 1);
      client.setQueryData<Pages>(["queue", filter], newest);
      return changes.arrived;
    } finally {
      setShowing(false);
    }
  };

  return {
    rows,
    isLoading: pages.isPending,
    error: pages.error ?? head.error,
    updatedAt: Math.max(pages.dataUpdatedAt, head.dataUpdatedAt),
    hasMore: pages.hasNextPage,
    isLoadingMore: pages.isFetchingNextPage,
    loadMore: () => void (pages.hasNextPage && !pages.isFetchingNextPage && pages.fetchNextPage()),
    changes,
    showChanges,
    isShowing,
    retry: () => void (pages.isError ? pages.refetch() : head.refetch()),
  };
}

/** Writes what this reader just did to a study into every list, such as `{ reviewed_at }` after a verdict. */
export function updateRow(client: QueryClient, imageId: string, fields: Partial<Study>): void {
  const update = (page: StudyPage) => ({
    ...page,
    studies: page.studies.map((study) => (study.image_id === imageId ? { ...study, ...fields } : study)),
  });
  client.setQueriesData<Pages>({ queryKey: ["queue"] }, (old) => old && { ...old, pages: old.pages.map(update) });
  client.setQueriesData<StudyPage>({ queryKey: ["head"] }, (old) => old && update(old));
}

function refreshRows(rows: Study[], head: StudyPage | undefined): Study[] {
  if (!head) return rows;
  const newest = new Map(head.studies.map((study) => [study.image_id, study]));
  return rows.map((row) => refreshRow(row, newest.get(row.image_id)));
}

/** The newest pages: the first, and more, up to as many as there were, until the row in hand is among them. */
async function reload(client: QueryClient, filter: Filter, inHand: string | null, most: number): Promise<Pages> {
  const head = await client.fetchQuery({
    queryKey: ["head", filter],
    queryFn: ({ signal }) => fetchPage(filter, null, true, signal),
    staleTime: REFRESH_MS,
  });
  const found: Pages = { pages: [head], pageParams: [null] };
  let last = head;
  while (inHand && found.pages.length < most && last.cursor && !last.studies.some((row) => row.image_id === inHand)) {
    found.pageParams.push(last.cursor);
    last = await fetchPage(filter, last.cursor, true);
    found.pages.push(last);
  }
  return found;
}

function fetchPage(filter: Filter, cursor: string | null, refresh: boolean, signal?: AbortSignal): Promise<StudyPage> {
  return request("GET", pagePath(filter, cursor, PAGE_SIZE, refresh), undefined, signal);
}
