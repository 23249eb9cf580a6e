/** The bucket, and what put the study there. */

import type { Bucket, Model, Prediction } from "../../api/types";
import { probability } from "../format";
import { plainName } from "./names";

const SHAPES: Record<Bucket, string> = { urgent: "▲", soon: "◆", routine: "●" };
const DRIVERS = 3;

export function BucketMark({ bucket }: { bucket: Bucket }) {
  return (
    <strong className={`bucket-mark bucket-${bucket}`}>
      <span aria-hidden="true">{SHAPES[bucket]}</span> {bucket}
    </strong>
  );
}

export function Triage({ prediction, model }: { prediction: Prediction; model: Model | undefined }) {
  const rule = model?.version === prediction.model_version ? model.triage : null;
  const { bucket, score, drivers, probabilities } = prediction;
  return (
    <div className="triage">
      <p>
        <BucketMark bucket={bucket} /> score {probability(score)}
        {rule && bucket !== "routine" && `, ${bucket} from ${probability(rule[bucket])}`}
        {rule && bucket === "routine" && `, soon from ${probability(rule.soon)}`}
      </p>
      <ul>
        {drivers.slice(0, DRIVERS).map(([finding, product]) => {
          const value = probabilities[finding] ?? null;
          const weight = rule?.weights[finding];
          return (
            <li key={finding}>
              <span>{plainName(finding)}</span>
              <span>
                {weight !== undefined && value !== null && `${weight} × ${probability(value)} = `}
                {probability(product)}
              </span>
            </li>
          );
        })}
      </ul>
    </div>
  );
}
