/** Fetches the next study before it is asked for. */

import type { Query, QueryClient, QueryFunctionContext } from "@tanstack/react-query";

import { recordQuery, whileAway } from "../api/queries";
import { request, withQuery } from "../api/client";
import type { Priors } from "../api/types";

const ARCHIVE_MS = 2_000; // between looks at whether the archive has answered

export function priorsQuery(imageId: string, prefetch = false) {
  const path = `/images/${imageId}/priors`;
  return {
    queryKey: ["priors", imageId],
    queryFn: ({ client, queryKey, signal }: QueryFunctionContext) => {
      const refresh = isAsked(client.getQueryData<Priors>(queryKey)) || null;
      return request<Priors>("GET", withQuery(path, { prefetch: prefetch || null, refresh }), undefined, signal);
    },
    staleTime: 60_000,
  };
}

/** Asks again while the archive is being asked for priors, or the endpoint does not answer, for `refetchInterval`. */
export function whileAsked(query: Query<Priors>): number | false {
  return isAsked(query.state.data) ? ARCHIVE_MS : whileAway(query);
}

function isAsked(priors: Priors | undefined): boolean {
  return priors?.archive.state === "waiting";
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
