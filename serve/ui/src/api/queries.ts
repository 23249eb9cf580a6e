/** What several pages ask the endpoint, each under one key of the cache. */
import { useQuery, type QueryClient, type QueryFunctionContext } from "@tanstack/react-query";
import { request, Unreachable, withQuery } from "./client";
import type { ImageRecord, Model, Session, Summary } from "./types";

export const SESSION = ["session"];
const AWAY_MS = 5_000;

export function useSession() {
  return useQuery({
    queryKey: SESSION,
    queryFn: ({ signal }) => request<Session>("GET", "/session", undefined, signal),
    staleTime: 60_000,
  });
}

/** The card of the served model: findings, operating points, triage, display modes. */
export function useModel() {
  return useQuery({
    queryKey: ["model"],
    queryFn: ({ signal }) => request<Model>("GET", "/model", undefined, signal),
    staleTime: 300_000,
  });
}

export function useSummary() {
  return useQuery({
    queryKey: ["summary"],
    queryFn: (context) =>
      request<Summary>("GET", withQuery("/studies/summary", refreshMark(context)), undefined, context.signal),
    refetchInterval: 15_000,
  });
}

/** What the page asks again by itself is marked: it prolongs no session, and the audit has a row of it now and then. */
export function refreshMark({ client, queryKey }: QueryFunctionContext): { refresh: true | null } {
  return { refresh: client.getQueryData(queryKey) === undefined ? null : true };
}

/** The record of a study; `prefetch` if nobody looks at it yet, which the audit then says. */
export function recordQuery(imageId: string, prefetch = false) {
  const path = withQuery(`/images/${imageId}`, { prefetch: prefetch || null });
  return {
    queryKey: ["record", imageId],
    queryFn: ({ signal }: { signal: AbortSignal }) => request<ImageRecord>("GET", path, undefined, signal),
  };
}

/** Asks again while the endpoint does not answer, for `refetchInterval`. */
export function whileAway({ state }: { state: { error: Error | null } }): number | false {
  return state.error instanceof Unreachable && AWAY_MS;
}

/** Marks counts and rows of a study as out of date, after a verdict or a claim. */
export function forgetStudy(client: QueryClient, imageId: string): void {
  void client.invalidateQueries({ queryKey: ["record", imageId] });
  void client.invalidateQueries({ queryKey: ["summary"] });
}
