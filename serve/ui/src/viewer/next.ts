/** Fetches the next study before it is asked for. */

import type { QueryClient } from "@tanstack/react-query";

import { recordQuery } from "../api/queries";
import { request, withQuery } from "../api/client";
import type { Priors } from "../api/types";

export function priorsQuery(imageId: string, prefetch = false) {
  const path = withQuery(`/images/${imageId}/priors`, { prefetch: prefetch || null });
  return {
    queryKey: ["priors", imageId],
    queryFn: async ({ signal }: { signal: AbortSignal }) =>
      (await request<Priors>("GET", path, undefined, signal)).priors,
    staleTime: 60_000,
  };
}

/** Record, priors and decoded film of a study; what fails now is fetched, and reported, when the study is opened. */
export async function prefetchStudy(client: QueryClient, imageId: string): Promise<void> {
  const { prefetchFilm } = await import("./film/films");
  await Promise.all([
    client.prefetchQuery(recordQuery(imageId, true)),
    client.prefetchQuery(priorsQuery(imageId, true)),
    prefetchFilm(imageId),
  ]);
}
