/** Findings of a prediction in the order in which they are read. */

import type { FlaggedPrediction, Prediction } from "../../api/types";

/** Positive ones first, then the more probable; those without a probability last. */
export function inOrder({ probabilities, positives }: Prediction): string[] {
  const rank = (finding: string) => (positives.includes(finding) ? 1 : 0);
  return Object.keys(probabilities).sort(
    (a, b) => rank(b) - rank(a) || (probabilities[b] ?? -1) - (probabilities[a] ?? -1) || a.localeCompare(b),
  );
}

/** Whether it has numbers; with `serve.modes.flag_only` it has none. */
export function hasNumbers(prediction: Prediction | FlaggedPrediction): prediction is Prediction {
  return "probabilities" in prediction;
}
