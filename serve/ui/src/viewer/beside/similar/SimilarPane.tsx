/** A similar film beside the current one. */

import type { Hit } from "../../../api/types";
import type { Tool } from "../../film/gestures";
import type { ViewStore } from "../../film/viewStore";
import { BesidePane } from "../BesidePane";
import { distanceOf, factsOf } from "./hits";

export function SimilarPane({ hit, store, tool, onClose }: { hit: Hit; store: ViewStore; tool: Tool; onClose: () => void }) {
  const words = ["Similar film", `distance ${distanceOf(hit)}`, factsOf(hit)].filter(Boolean).join(", ");
  return (
    <BesidePane imageId={hit.image_id} label={words} store={store} tool={tool}>
      <div className="prior-choice">
        <span>{words}</span>
        <button type="button" onClick={onClose}>
          Close
        </button>
      </div>
    </BesidePane>
  );
}
