/** Which labels val does not rule out for each finding, at an error rate. Closed at first: it needs its explanation. */

import type { Prediction } from "../../api/types";
import { plainName } from "./names";

type Sets = NonNullable<Prediction["label_sets"]>;
type LabelSet = NonNullable<Sets["findings"][string]>;

const GROUPS: readonly [LabelSet, string][] = [
  ["present", "Present"],
  ["both", "Present or absent"],
  ["absent", "Absent"],
  ["neither", "Neither"],
];

export function LabelSets({ sets, findings }: { sets: Sets; findings: string[] }) {
  const rate = `${Math.round(100 * (1 - sets.error_rate))} %`;
  return (
    <details className="label-sets">
      <summary>Present, absent or both, at {rate}</summary>
      <dl>
        {GROUPS.map(([set, title]) => {
          const names = findings.filter((finding) => sets.findings[finding] === set).map(plainName);
          return (
            names.length > 0 && (
              <div key={set}>
                <dt>{title}</dt>
                <dd>{names.join(", ")}</dd>
              </div>
            )
          );
        })}
      </dl>
      <p>
        Of films like the validation films, at least {rate} of those with a finding have it in one of the lines with “present”, and at least{" "}
        {rate} of those without it in one with “absent”. So it may be wrong here: it rules nothing out on this film.
      </p>
    </details>
  );
}
