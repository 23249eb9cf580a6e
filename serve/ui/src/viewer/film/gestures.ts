/** Mouse, wheel and touch on a film, as changes of its view. */

import { moveBy, type View, windowBy, zoomBy } from "./view";
import type { CanvasPoint, FilmViewport } from "./viewport";

/** What dragging with the left button, or with one finger, does. */
export type Tool = "window" | "pan" | "length";

const WHEEL_STEP = 0.0015; // of the zoom's logarithm, a pixel of the wheel
const ZOOM_STEP = 0.01; // the same, a pixel of a drag
const LEFT = 0;
const MIDDLE = 1;
const RIGHT = 2;

interface Hands {
  tool: () => Tool;
  change: (change: (view: View) => View) => void;
}

/** Makes the film's element react, until the returned function is called. The length tool measures by itself. */
export function bindGestures(element: HTMLElement, viewport: FilmViewport, { tool, change }: Hands): () => void {
  const fingers = new Map<number, CanvasPoint>();
  let drag: "window" | "pan" | "zoom" | null = null;
  let spaceIsDown = false;

  const at = (event: MouseEvent): CanvasPoint => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const onDown = (event: PointerEvent) => {
    drag = chooseDrag(event, tool(), spaceIsDown);
    if (!drag && fingers.size === 0) return;
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event));
    if (event.button === MIDDLE) event.preventDefault(); // no scrolling by the middle button
  };
  const onMove = (event: PointerEvent) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    fingers.set(event.pointerId, now);
    if (others[0]) change((view) => pinch(view, viewport, before, now, others[0]!));
    else if (drag === "window") change((view) => windowDrag(view, element, before, now));
    else if (drag === "zoom") change((view) => zoomBy(view, Math.exp((before[1] - now[1]) * ZOOM_STEP)));
    else if (drag === "pan") change((view) => moveBy(view, viewport.toFilm(before), viewport.toFilm(now)));
  };
  const onUp = (event: PointerEvent) => {
    fingers.delete(event.pointerId);
    if (fingers.size === 0) drag = null;
  };
  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    const anchor = viewport.toFilm(at(event));
    change((view) => zoomBy(view, Math.exp(-event.deltaY * WHEEL_STEP), anchor));
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key === " ") spaceIsDown = event.type === "keydown";
  };
  const noMenu = (event: Event) => event.preventDefault();

  const stop = new AbortController();
  const { signal } = stop;
  element.addEventListener("pointerdown", onDown, { signal });
  element.addEventListener("pointermove", onMove, { signal });
  element.addEventListener("pointerup", onUp, { signal });
  element.addEventListener("pointercancel", onUp, { signal });
  element.addEventListener("wheel", onWheel, { signal, passive: false });
  element.addEventListener("contextmenu", noMenu, { signal });
  window.addEventListener("keydown", onKey, { signal });
  window.addEventListener("keyup", onKey, { signal });
  return () => stop.abort();
}

function chooseDrag(event: PointerEvent, tool: Tool, spaceIsDown: boolean) {
  if (event.button === RIGHT) return "zoom";
  if (event.button === MIDDLE || (event.button === LEFT && spaceIsDown)) return "pan";
  return event.button === LEFT && tool !== "length" ? tool : null;
}

/** Across: wider or narrower; up: brighter, which is a lower window. */
function windowDrag(view: View, element: HTMLElement, before: CanvasPoint, now: CanvasPoint): View {
  const across = (now[0] - before[0]) / element.clientWidth;
  const down = (now[1] - before[1]) / element.clientHeight;
  return windowBy(view, down, Math.exp(2 * across));
}

/** Two fingers: what is between them stays between them. */
function pinch(view: View, viewport: FilmViewport, before: CanvasPoint, now: CanvasPoint, other: CanvasPoint): View {
  const factor = distance(now, other) / Math.max(1, distance(before, other));
  const [from, to] = [viewport.toFilm(middle(before, other)), viewport.toFilm(middle(now, other))];
  return zoomBy(moveBy(view, from, to), factor, from);
}

function distance(a: CanvasPoint, b: CanvasPoint): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

function middle(a: CanvasPoint, b: CanvasPoint): CanvasPoint {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}
