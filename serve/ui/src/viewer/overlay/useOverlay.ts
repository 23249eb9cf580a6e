/** The overlay's state: off until the reader asks for it. */

import { useState } from "react";

import { ApiError } from "../../api/client";
import { useMap } from "./map";

const OPACITY = 0.45;

export function useOverlay(imageId: string, positives: string[], version: number | null) {
  const [shown, setShown] = useState(false);
  const [chosen, setChosen] = useState<string | null>(null);
  const [opacity, setOpacity] = useState(OPACITY);
  const finding = chosen !== null && positives.includes(chosen) ? chosen : (positives[0] ?? null);
  const { data: map, error, isPending } = useMap(imageId, shown ? finding : null);
  const next = () => {
    if (finding !== null) setChosen(positives[(positives.indexOf(finding) + 1) % positives.length]!);
  };
  return {
    shown,
    finding,
    map: map ?? null,
    opacity,
    status: statusOf(error, isPending, map?.version ?? null, version),
    toggle: () => setShown(!shown),
    choose: setChosen,
    next,
    setOpacity,
  };
}

function statusOf(error: Error | null, loading: boolean, ofMap: number | null, ofPrediction: number | null) {
  if (error) return `No overlay: ${error instanceof ApiError ? error.message : "the endpoint does not answer"}.`;
  if (loading) return "Loading the overlay.";
  const differs = ofMap !== null && ofPrediction !== null && ofMap !== ofPrediction;
  return differs ? `Map of version ${ofMap}; the numbers beside are of version ${ofPrediction}.` : null;
}
