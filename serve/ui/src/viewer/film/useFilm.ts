import { useEffect, useState } from "react";

import { ApiError, Unreachable } from "../../api/client";
import { type Film, openFilm } from "./films";

export interface FilmState {
  film: Film | null;
  /** Why the film is not shown; null while it loads and when it is shown. */
  problem: string | null;
  fail: (error: unknown) => void;
  retry: () => void;
}

export function useFilm(imageId: string): FilmState {
  const [attempt, setAttempt] = useState(0);
  const [state, setState] = useState<{ film: Film | null; problem: string | null }>({ film: null, problem: null });
  const fail = (error: unknown) => setState({ film: null, problem: reason(error) });
  useEffect(() => {
    let left = false;
    setState({ film: null, problem: null });
    openFilm(imageId).then(
      (film) => left || setState({ film, problem: null }),
      (error: unknown) => left || fail(error),
    );
    return () => {
      left = true;
    };
  }, [imageId, attempt]);
  return { ...state, fail, retry: () => setAttempt(attempt + 1) };
}

/** Why a film is not shown, in a sentence. */
function reason(error: unknown): string {
  if (error instanceof ApiError && error.code === "image_not_kept") {
    return "Image not kept: this endpoint scores films without storing them. What is known of it is shown beside.";
  }
  if (error instanceof ApiError && error.code === "image_file_missing") {
    return "Image missing: its file was stored, but is gone or has changed.";
  }
  if (error instanceof Unreachable) return "This film cannot be shown: the endpoint does not answer.";
  return `This film cannot be shown: ${detail(error)}.`;
}

/** Cornerstone rejects with an error, or with an object that holds one. */
function detail(error: unknown): string {
  const inner = typeof error === "object" && error !== null && "error" in error ? error.error : error;
  const text = inner instanceof Error ? inner.message : String(inner);
  return text.replace(/[.\s]+$/, "") || "its file cannot be decoded";
}
