/** A coloured map over the film: it follows the film's corners, whatever the view. */

import { useCallback, useRef } from "react";

import { useDrawn } from "../film/useDrawn";
import type { FilmViewport } from "../film/viewport";

interface Props {
  viewport: FilmViewport;
  picture: HTMLCanvasElement;
  /** 0 to 1. */
  opacity: number;
}

export function Overlay({ viewport, picture, opacity }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const draw = useCallback(() => {
    if (canvas.current) drawOver(canvas.current, viewport, picture, opacity);
  }, [viewport, picture, opacity]);
  useDrawn(viewport, draw);
  return <canvas ref={canvas} className="film-overlay" aria-hidden="true" />;
}

function drawOver(canvas: HTMLCanvasElement, viewport: FilmViewport, picture: HTMLCanvasElement, opacity: number) {
  const density = window.devicePixelRatio;
  canvas.width = Math.round(canvas.clientWidth * density);
  canvas.height = Math.round(canvas.clientHeight * density);
  const context = canvas.getContext("2d")!;
  const [left, top] = viewport.toCanvas([0, 0]);
  const [acrossX, acrossY] = viewport.toCanvas([1, 0]);
  const [downX, downY] = viewport.toCanvas([0, 1]);
  context.scale(density, density);
  context.transform(acrossX - left, acrossY - top, downX - left, downY - top, left, top); // the film is the unit square
  context.globalAlpha = opacity;
  context.drawImage(picture, 0, 0, 1, 1);
}
