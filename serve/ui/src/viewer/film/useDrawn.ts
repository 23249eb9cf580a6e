import { useEffect } from "react";

import type { FilmViewport } from "./viewport";

/** Runs `draw` now and after every drawing of the film. */
export function useDrawn(viewport: FilmViewport, draw: () => void): void {
  useEffect(() => {
    draw();
    return viewport.onDrawn(draw);
  }, [viewport, draw]);
}
