/** Lengths on the film, measured by mouse or by keys, in a unit that the file warrants. */

import { useCallback, useState } from "react";

import { useKeys } from "../../app/keys";
import type { Film } from "../film/films";
import { useDrawn } from "../film/useDrawn";
import type { FilmPoint } from "../film/view";
import type { FilmViewport } from "../film/viewport";

export type Segment = readonly [FilmPoint, FilmPoint];

interface Props {
  viewport: FilmViewport;
  film: Film;
  active: boolean;
  segments: Segment[];
  onMeasured: (segment: Segment) => void;
}

const STEP = 0.01; // of the film, an arrow key
const LABEL_OFFSET = 8; // CSS pixels

export function Length({ viewport, film, active, segments, onMeasured }: Props) {
  const [open, setOpen] = useState<Segment | null>(null);
  const [, redraw] = useState(0);
  useDrawn(viewport, useCallback(() => redraw((count) => count + 1), []));

  const pointAt = (event: React.PointerEvent<SVGSVGElement>): FilmPoint => {
    const box = event.currentTarget.getBoundingClientRect();
    return viewport.toFilm([event.clientX - box.left, event.clientY - box.top]);
  };
  const finish = () => {
    if (open && (open[0][0] !== open[1][0] || open[0][1] !== open[1][1])) onMeasured(open);
    setOpen(null);
  };

  return (
    <svg
      className="film-lengths"
      data-active={active}
      aria-hidden="true"
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        setOpen([pointAt(event), pointAt(event)]);
      }}
      onPointerMove={(event) => event.buttons && open && setOpen([open[0], pointAt(event)])}
      onPointerUp={finish}
      onPointerCancel={() => setOpen(null)}
    >
      {[...segments, ...(open ? [open] : [])].map((segment, index) => (
        <Line key={index} viewport={viewport} film={film} segment={segment} />
      ))}
      {active && <LengthKeys open={open} setOpen={setOpen} finish={finish} />}
    </svg>
  );
}

function Line({ viewport, film, segment }: { viewport: FilmViewport; film: Film; segment: Segment }) {
  const [[x1, y1], [x2, y2]] = [viewport.toCanvas(segment[0]), viewport.toCanvas(segment[1])];
  return (
    <g>
      <line x1={x1} y1={y1} x2={x2} y2={y2} />
      <circle cx={x1} cy={y1} r={3} />
      <circle cx={x2} cy={y2} r={3} />
      <text x={x2 + LABEL_OFFSET} y={y2 - LABEL_OFFSET}>
        {lengthOf(segment, film)}
      </text>
    </g>
  );
}

/** The arrow keys move the end of the length, Enter sets it: first the start, then the end. */
function LengthKeys({
  open,
  setOpen,
  finish,
}: {
  open: Segment | null;
  setOpen: (segment: Segment) => void;
  finish: () => void;
}) {
  const [started, setStarted] = useState(false);
  const move = (dx: number, dy: number) => {
    const [start, end] = open ?? [[0.5, 0.5], [0.5, 0.5]];
    const moved: FilmPoint = [end[0]! + dx * STEP, end[1]! + dy * STEP];
    setOpen(started ? [start as FilmPoint, moved] : [moved, moved]);
  };
  const arrow = (key: string, dx: number, dy: number) => ({
    id: `length.${key.toLowerCase()}`,
    keys: [key],
    label: `Move the point ${key.replace("Arrow", "").toLowerCase()}`,
    group: "Length",
    run: () => move(dx, dy),
  });
  useKeys(
    [
      arrow("ArrowLeft", -1, 0),
      arrow("ArrowRight", 1, 0),
      arrow("ArrowUp", 0, -1),
      arrow("ArrowDown", 0, 1),
      {
        id: "length.set",
        keys: ["Enter"],
        label: "Set the start, then the end",
        group: "Length",
        run: () => {
          if (started) finish();
          else move(0, 0);
          setStarted(!started);
        },
      },
    ],
    true,
  );
  return null;
}

/** The length as it is shown: "412 px", "57.3 mm", "61.0 mm (imager)". */
export function lengthOf([from, to]: Segment, film: Film): string {
  const { image, spacing } = film;
  const across = (to[0] - from[0]) * image.columns * spacing.column;
  const down = (to[1] - from[1]) * image.rows * spacing.row;
  const length = Math.hypot(across, down);
  return spacing.unit === "px" ? `${Math.round(length)} px` : `${length.toFixed(1)} ${spacing.unit}`;
}
