/** What can be done to a film by one press of a button or a key. */

import type { Binding } from "../../app/keys";
import { fit, INITIAL, invert, moveBy, rotate, windowBy, zoomBy, zoomTo } from "../film/view";
import type { ViewStore } from "../film/viewStore";
import type { FilmViewport } from "../film/viewport";

export interface Command extends Binding {
  /** The word on its button; without one it has a key alone. */
  button?: string;
  pressed?: boolean;
  disabled?: boolean;
  run: () => void;
}

const GROUP = "Film";
const ZOOM = 1.25;
const MOVE = 0.1; // of what is in view
const SHIFT = 0.05; // of the window
const WIDTH = 1.15;

export function filmCommands(store: ViewStore, viewport: () => FilmViewport | null, reset: () => void): Command[] {
  const { change } = store;
  const move = (dx: number, dy: number) => () =>
    change((view) => moveBy(view, turned(-dx, -dy, view.rotation, view.zoom), [0, 0]));
  const actualSize = () => {
    const opened = viewport();
    if (opened) change((view) => zoomTo(view, opened.actualSize()));
  };
  const command = (name: string, keys: string[], label: string, run: () => void, button?: string): Command => ({
    id: `film.${name}`,
    keys,
    label,
    group: GROUP,
    run,
    ...(button ? { button } : {}),
  });
  return [
    command("invert", ["i"], "Invert", () => change(invert), "Invert"),
    command("rotate", ["r"], "Rotate by 90°", () => change(rotate), "Rotate"),
    command("fit", ["f"], "Fit the whole film", () => change(fit), "Fit"),
    command("actual", ["1"], "One pixel of the film on one of the screen", actualSize, "1:1"),
    command("reset", ["0"], "Reset the view", () => (change(() => INITIAL), reset()), "Reset"),
    command("zoomIn", ["+", "="], "Zoom in", () => change((view) => zoomBy(view, ZOOM))),
    command("zoomOut", ["-"], "Zoom out", () => change((view) => zoomBy(view, 1 / ZOOM))),
    command("left", ["ArrowLeft"], "Move the film left", move(-1, 0)),
    command("right", ["ArrowRight"], "Move the film right", move(1, 0)),
    command("up", ["ArrowUp"], "Move the film up", move(0, -1)),
    command("down", ["ArrowDown"], "Move the film down", move(0, 1)),
    command("darker", ["["], "Darker", () => change((view) => windowBy(view, SHIFT, 1))),
    command("brighter", ["]"], "Brighter", () => change((view) => windowBy(view, -SHIFT, 1))),
    command("softer", [","], "Less contrast", () => change((view) => windowBy(view, 0, WIDTH))),
    command("harder", ["."], "More contrast", () => change((view) => windowBy(view, 0, 1 / WIDTH))),
  ];
}

/** A step on the canvas as a step on the film, which may be rotated. */
function turned(dx: number, dy: number, rotation: number, zoom: number): [number, number] {
  const angle = (rotation * Math.PI) / 180;
  const [cos, sin] = [Math.round(Math.cos(angle)), Math.round(Math.sin(angle))];
  return [((cos * dx + sin * dy) * MOVE) / zoom, ((cos * dy - sin * dx) * MOVE) / zoom];
}
