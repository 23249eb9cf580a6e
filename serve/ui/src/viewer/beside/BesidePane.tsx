/** Another film beside the current one, looked at alike. */

import type { ReactNode } from "react";

import { FilmMessage } from "../FilmMessage";
import { FilmPane } from "../film/FilmPane";
import type { Tool } from "../film/gestures";
import { useFilm } from "../film/useFilm";
import type { ViewStore } from "../film/viewStore";

interface Props {
  imageId: string;
  label: string;
  store: ViewStore;
  tool: Tool;
  /** What stands above the film. */
  children: ReactNode;
}

export function BesidePane({ imageId, label, store, tool, children }: Props) {
  const { film, problem, fail, retry } = useFilm(imageId);
  return (
    <div className="prior">
      {children}
      {film ? (
        // Lengths are measured on the current film alone, so here that tool moves the film.
        <FilmPane film={film} store={store} tool={tool === "length" ? "pan" : tool} label={label} onFailed={fail} />
      ) : (
        <FilmMessage problem={problem} onRetry={retry} />
      )}
    </div>
  );
}
