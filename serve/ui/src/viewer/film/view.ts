/** How a film is looked at, in units of the film itself, so that two films can be looked at alike. */

/** A point on a film: 0 to 1 from its left edge and from its top. */
export type FilmPoint = readonly [number, number];

export interface View {
  /** 1: the whole film fits. */
  readonly zoom: number;
  /** The point of the film in the middle of the canvas. */
  readonly centre: FilmPoint;
  /** Degrees clockwise: 0, 90, 180 or 270. */
  readonly rotation: number;
  readonly inverted: boolean;
  /** The window's middle and width, relative to the film's own window: [0, 1] is that window. */
  readonly window: readonly [shift: number, width: number];
}

export const INITIAL: View = { zoom: 1, centre: [0.5, 0.5], rotation: 0, inverted: false, window: [0, 1] };

const ZOOM_RANGE = [0.2, 40] as const;
const WIDTH_RANGE = [0.02, 10] as const;
const SHIFT_RANGE = [-2, 2] as const;
const QUARTER = 90;
const FULL = 360;

/** Zooms by a factor; `anchor` stays where it is on the canvas. */
export function zoomBy(view: View, factor: number, anchor: FilmPoint = view.centre): View {
  const zoom = clamp(view.zoom * factor, ZOOM_RANGE);
  const part = view.zoom / zoom;
  const centre: FilmPoint = [
    anchor[0] + (view.centre[0] - anchor[0]) * part,
    anchor[1] + (view.centre[1] - anchor[1]) * part,
  ];
  return { ...view, zoom, centre };
}

/** Moves the film so that what was at `from` is at `to`; some of it always stays in the middle. */
export function moveBy(view: View, from: FilmPoint, to: FilmPoint): View {
  const [x, y] = view.centre;
  return { ...view, centre: [clamp(x + from[0] - to[0], [0, 1]), clamp(y + from[1] - to[1], [0, 1])] };
}

export function fit(view: View): View {
  return { ...view, zoom: 1, centre: INITIAL.centre };
}

export function zoomTo(view: View, zoom: number): View {
  return zoomBy(view, zoom / view.zoom);
}

export function rotate(view: View): View {
  return { ...view, rotation: (view.rotation + QUARTER) % FULL };
}

export function invert(view: View): View {
  return { ...view, inverted: !view.inverted };
}

/** Makes the film darker or brighter (`shift`) and the window wider or narrower (`factor`). */
export function windowBy(view: View, shift: number, factor: number): View {
  const [middle, width] = view.window;
  return { ...view, window: [clamp(middle + shift, SHIFT_RANGE), clamp(width * factor, WIDTH_RANGE)] };
}

function clamp(value: number, [least, most]: readonly [number, number]): number {
  return Math.min(most, Math.max(least, value));
}
