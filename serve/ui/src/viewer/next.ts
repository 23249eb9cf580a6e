/** Fetches the next study before it is asked for. */

import type { QueryClient } from "@tanstack/react-query";

import { recordQuery } from "../api/queries";
import { request } from "../api/client";
import type { Prior } from "../api/types";

export function priorsQuery(imageId: string) {
  return {
    queryKey: ["priors", imageId],
    queryFn: async ({ signal }: { signal: AbortSignal }) =>
      (await request<{ priors: Prior[] }>("GET", `/images/${imageId}/priors`, undefined, signal)).priors,
    staleTime: 60_000,
  };
}

/** Record, priors and decoded film of a study; what fails now is fetched, and reported, when the study is opened. */
export async function prefetchStudy(client: QueryClient, imageId: string): Promise<void> {
  const { prefetchFilm } = await import("./film/films");
  await Promise.all([
    client.prefetchQuery(recordQuery(imageId)),
    client.prefetchQuery(priorsQuery(imageId)),
    prefetchFilm(imageId),
  ]);
}
