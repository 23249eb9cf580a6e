/** The activation map of a finding, as the endpoint makes it. */

import { useQuery } from "@tanstack/react-query";

import { send, withQuery } from "../../api/client";
import { colourMap } from "./colours";

export interface ActivationMap {
  picture: HTMLCanvasElement;
  /** The version that serves now; a prediction may be of another. */
  version: number | null;
}

export function useMap(imageId: string, finding: string | null) {
  return useQuery({
    queryKey: ["map", imageId, finding],
    queryFn: ({ signal }) => fetchMap(imageId, finding!, signal),
    enabled: finding !== null,
    staleTime: Infinity,
    gcTime: 10_000, // pictures are large
  });
}

async function fetchMap(imageId: string, finding: string, signal: AbortSignal): Promise<ActivationMap> {
  const path = withQuery(`/images/${imageId}/map`, { label: finding });
  const response = await send("GET", path, undefined, signal);
  const bitmap = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
  const version = Number(response.headers.get("X-Model-Version"));
  const picture = colourMap(bitmap);
  bitmap.close();
  return { picture, version: version > 0 ? version : null };
}
