/** What a probability meant on val: of the films that scored alike, how many had the finding. */

import type { Prediction } from "../../api/types";
import { percent } from "../format";

export type Band = NonNullable<NonNullable<Prediction["confidence"]>[string]>;

/** In words. The interval is rounded outwards, so that it is never told narrower than it is. */
export function BandText({ band }: { band: Band | null }) {
  if (!band) return <span className="finding-band">no films scored like this</span>;
  const [low, high] = [Math.floor(100 * band.low + ROUNDING), Math.ceil(100 * band.high - ROUNDING)];
  return (
    <span className="finding-band">
      {low} to {high} of 100<span className="visually-hidden"> like this had it</span> (n = {band.n})
    </span>
  );
}

/** As a line on the bar. */
export function BandWhisker({ band }: { band: Band }) {
  return <span className="bar-whisker" style={{ left: percent(band.low), width: percent(band.high - band.low) }} />;
}

const ROUNDING = 1e-9; // of a binary fraction such as 0.15, which times 100 is a little more than 15
