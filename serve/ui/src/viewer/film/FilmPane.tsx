/** One film on black, with what lies over it. */

import { type ReactNode, useEffect, useId, useRef, useState } from "react";

import type { Film } from "./films";
import { bindGestures, type Tool } from "./gestures";
import type { ViewStore } from "./viewStore";
import { FilmViewport } from "./viewport";

interface Props {
  film: Film;
  store: ViewStore;
  tool: Tool;
  label: string;
  /** Called with the viewport once the film is shown in it. */
  onShown?: (viewport: FilmViewport) => void;
  onFailed: (error: unknown) => void;
  /** What is drawn over the film. */
  children?: (viewport: FilmViewport) => ReactNode;
}

export function FilmPane({ film, store, tool, label, onShown, onFailed, children }: Props) {
  const id = useId();
  const element = useRef<HTMLDivElement>(null);
  const [viewport, setViewport] = useState<FilmViewport | null>(null);
  const latest = useRef({ tool, onShown, onFailed });
  useEffect(() => {
    latest.current = { tool, onShown, onFailed };
  });

  useEffect(() => {
    const host = element.current;
    if (!host) return;
    const opened = new FilmViewport(id, host);
    let closed = false;
    opened.show(film, store.get()).then(
      () => {
        if (closed) return;
        setViewport(opened);
        latest.current.onShown?.(opened);
      },
      (error: unknown) => closed || latest.current.onFailed(error),
    );
    const unfollow = store.subscribe(() => opened.apply(store.get()));
    const unbind = bindGestures(host, opened, { tool: () => latest.current.tool, change: store.change });
    const resizing = new ResizeObserver(() => opened.resize());
    resizing.observe(host);
    return () => {
      closed = true;
      resizing.disconnect();
      unbind();
      unfollow();
      opened.close();
      setViewport(null);
    };
  }, [film, store, id]);

  return (
    <div className="film-pane">
      <div
        ref={element}
        className="film-canvas"
        role="img"
        aria-label={label}
        data-shown={viewport !== null}
        data-renderer={viewport?.renderer}
      />
      {viewport && children?.(viewport)}
    </div>
  );
}
