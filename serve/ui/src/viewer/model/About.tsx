/** Where the numbers come from, and what is not known about them. */

import type { FlaggedPrediction, ImageRecord, Model, Prediction } from "../../api/types";
import { minute } from "../format";
import { plainName } from "./names";

interface Props {
  record: ImageRecord;
  prediction: Prediction | FlaggedPrediction;
  model: Model | undefined;
  /** Whether a reader's verdict on it stands. */
  verified: boolean;
}

export function About({ record, prediction, model, verified }: Props) {
  const served = model?.version === prediction.model_version ? model : null;
  return (
    <div className="about">
      <p className="about-tags">
        {!verified && <span>not verified</span>}
        {served?.synthetic && <span title="Trained on synthetic radiographs">synthetic</span>}
        {served?.not_champion && <span title={served.not_champion}>not champion</span>}
      </p>
      <dl>
        <dt>Model</dt>
        <dd>version {prediction.model_version}</dd>
        <dt>Scored</dt>
        <dd>{minute(prediction.at)}</dd>
        <dt>Snapshot</dt>
        <dd>{prediction.snapshot}</dd>
      </dl>
      <Labels record={record} />
      <Readers record={record} />
    </div>
  );
}

/** Closed at first, like other readers' verdicts: a reader should look before being told. */
function Labels({ record }: { record: ImageRecord }) {
  const sources = [...new Set(record.labels.map((label) => label.source))];
  if (sources.length === 0) return null;
  return (
    <details>
      <summary>Labels of the corpus</summary>
      {sources.map((source) => {
        const present = record.labels.filter((label) => label.source === source && label.value === 1);
        return (
          <p key={source}>
            {source}: {present.map((label) => plainName(label.finding)).join(", ") || "no finding"}
          </p>
        );
      })}
    </details>
  );
}

function Readers({ record }: { record: ImageRecord }) {
  if (record.reviews.length === 0) return null;
  return (
    <details>
      <summary>Verdicts so far ({record.reviews.length})</summary>
      <ul>
        {record.reviews.map((review) => (
          <li key={review.review_id}>
            {minute(review.at)} {review.reviewer}: {plainName(review.finding)} {review.verdict}
            {review.notes && `, “${review.notes}”`}
          </li>
        ))}
      </ul>
    </details>
  );
}
