/** Which map lies over the film, how strongly, and what its colours mean. */

import { useEffect, useRef } from "react";

import { plainName } from "../model/names";
import { TABLE } from "./colours";

interface Props {
  findings: string[];
  finding: string;
  onFinding: (finding: string) => void;
  opacity: number;
  onOpacity: (opacity: number) => void;
  /** Loading, or what went wrong; null while the map is shown. */
  status: string | null;
}

export function OverlayControls({ findings, finding, onFinding, opacity, onOpacity, status }: Props) {
  return (
    <div className="overlay-controls" role="group" aria-label="Overlay">
      <select aria-label="Finding of the overlay" value={finding} onChange={(event) => onFinding(event.target.value)}>
        {findings.map((name) => (
          <option key={name} value={name}>
            {plainName(name)}
          </option>
        ))}
      </select>
      <label>
        Opacity
        <input
          type="range"
          min={0}
          max={100}
          step={5}
          value={Math.round(opacity * 100)}
          onChange={(event) => onOpacity(Number(event.target.value) / 100)}
        />
      </label>
      <Legend />
      <p role="status">{status ?? "Where the model's evidence lies, not the outline of a disease."}</p>
    </div>
  );
}

function Legend() {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    context?.putImageData(new ImageData(new Uint8ClampedArray(TABLE), TABLE.length / 4, 1), 0, 0);
  }, []);
  return (
    <div className="overlay-legend">
      <span>none</span>
      <canvas ref={canvas} width={TABLE.length / 4} height={1} aria-hidden="true" />
      <span>peak</span>
    </div>
  );
}
