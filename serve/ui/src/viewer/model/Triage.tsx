/** The bucket, and what put the study there. */

import type { Model, Prediction } from "../../api/types";
import { BucketMark } from "../../queue/BucketMark";
import { probability } from "../format";
import { plainName } from "./names";

const DRIVERS = 3;

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
