/** An earlier film of the same patient, looked at like the current one. */

import { useState } from "react";

import type { Prior } from "../../api/types";
import type { Tool } from "../film/gestures";
import type { ViewStore } from "../film/viewStore";
import { day } from "../format";
import { BesidePane } from "./BesidePane";

export function PriorPane({ priors, store, tool }: { priors: Prior[]; store: ViewStore; tool: Tool }) {
  const [imageId, setImageId] = useState(priors[0]!.image_id);
  const prior = priors.find((one) => one.image_id === imageId) ?? priors[0]!;
  return (
    <BesidePane imageId={imageId} label={`Prior film, ${describe(prior)}`} store={store} tool={tool}>
      <label className="prior-choice">
        Prior
        <select value={imageId} onChange={(event) => setImageId(event.target.value)}>
          {priors.map((one) => (
            <option key={one.image_id} value={one.image_id}>
              {describe(one)}
            </option>
          ))}
        </select>
      </label>
    </BesidePane>
  );
}

/** The day of the study or, where it is not known, that of the receipt. */
function describe({ studied_on, received_at, view, bucket }: Prior): string {
  return [studied_on ?? day(received_at), view, bucket].filter(Boolean).join(", ");
}
