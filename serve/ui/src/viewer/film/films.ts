/** Films of the endpoint, decoded: the few that are or may soon be looked at are kept, the others are freed. */

import { cache } from "@cornerstonejs/core";

import { ApiError, send, withQuery } from "../../api/client";
import type { Decoded } from "./decoded";
import { decodeDicom } from "./dicom";
import { renderingEngine } from "./engine";
import { decodeRaster } from "./raster";
import { tellSeen } from "./seen";

const KEPT = 4; // current, prior, next and the one before
const PREVIEW_PIXELS = 2048;
const DICOM = "application/dicom";

export interface Film extends Decoded {
  /** What the reader must know about the picture; null if it is the film itself. */
  caveat: string | null;
}

interface Entry {
  film: Promise<Film>;
  seen: boolean;
}

const entries = new Map<string, Entry>();

/** Loads a film that is looked at now, and sees to it that the audit says so. Rejects with the reason. */
export function openFilm(imageId: string): Promise<Film> {
  const known = entries.get(imageId);
  if (known && !known.seen) void tellSeen(imageId);
  return load(imageId, true);
}

/** Loads a film that may be looked at next. */
export async function prefetchFilm(imageId: string): Promise<void> {
  await load(imageId, false).catch(() => undefined); // opening it says why
}

function load(imageId: string, seen: boolean): Promise<Film> {
  const known = entries.get(imageId);
  const entry: Entry = known ?? { film: fetchFilm(imageId, !seen), seen };
  entry.seen ||= seen;
  entries.delete(imageId); // to the end: used last
  entries.set(imageId, entry);
  if (!known) {
    void entry.film.catch(() => entries.get(imageId) === entry && entries.delete(imageId)); // so that it may be tried again
    freeOldest();
  }
  return entry.film;
}

function freeOldest(): void {
  for (const [imageId, { film }] of entries) {
    if (entries.size <= KEPT) return;
    entries.delete(imageId);
    void film.then(free, () => undefined);
  }
}

function free(film: Film): void {
  const { imageId } = film.image;
  if (cache.getImage(imageId)) cache.removeImageLoadObject(imageId, { force: true });
  film.forget();
}

async function fetchFilm(imageId: string, prefetch: boolean): Promise<Film> {
  renderingEngine();
  const response = await send("GET", withQuery(`/images/${imageId}/file`, { prefetch: prefetch || null }));
  const blob = await response.blob();
  if (response.headers.get("Content-Type") === DICOM) return { ...(await decodeDicom(blob)), caveat: null };
  try {
    return { ...(await decodeRaster(blob)), caveat: null };
  } catch (error) {
    return fetchPreview(imageId, prefetch, error);
  }
}

/** The endpoint's own picture of a film that this browser cannot decode. Rejects with the browser's error. */
async function fetchPreview(imageId: string, prefetch: boolean, error: unknown): Promise<Film> {
  const path = withQuery(`/images/${imageId}/preview`, { size: PREVIEW_PIXELS, prefetch: prefetch || null });
  try {
    const blob = await (await send("GET", path)).blob();
    const caveat = `This browser cannot decode the file: a picture of at most ${PREVIEW_PIXELS} pixels is shown.`;
    return { ...(await decodeRaster(blob)), caveat };
  } catch (second) {
    throw second instanceof ApiError && second.status < 500 ? second : error;
  }
}
