/** A hit: its thumbnail, how far it is, and what is known of it. A click shows it beside the film. */

import { useState } from "react";

import type { Hit } from "../../../api/types";
import { BucketMark } from "../../../queue/BucketMark";
import { callsOf, distanceOf, factsOf, labelsOf, verdictsOf } from "./hits";

const THUMBNAIL_PIXELS = 256;

export function HitCard({ hit, shown, onCompare }: { hit: Hit; shown: boolean; onCompare: () => void }) {
  const said: [string, string | null][] = [
    ["Label", labelsOf(hit)],
    ["Model", callsOf(hit)],
    ["Verdicts", verdictsOf(hit)],
  ];
  return (
    <li className="hit">
      <button type="button" aria-pressed={shown} onClick={onCompare}>
        <Thumbnail hit={hit} />
        <span className="hit-said">
          <span className="hit-place">
            <span>Distance {distanceOf(hit)}</span>
            <BucketMark bucket={hit.bucket} />
          </span>
          {factsOf(hit) && <span>{factsOf(hit)}</span>}
          {said.map(([name, words]) => words && (
            <span key={name}>
              <span className="hit-name">{name}:</span> {words}
            </span>
          ))}
        </span>
      </button>
    </li>
  );
}

function Thumbnail({ hit }: { hit: Hit }) {
  const [failed, setFailed] = useState(false);
  if (!hit.preview || failed) return <span className="hit-thumbnail">No picture</span>;
  const source = `${hit.preview}?size=${THUMBNAIL_PIXELS}`;
  return <img className="hit-thumbnail" src={source} alt="" loading="lazy" onError={() => setFailed(true)} />;
}
