/** Every finding: its probability as a bar and a number, what that meant on val, and the operating point if known. */

import { type ReactNode, useEffect, useRef } from "react";

import type { Model, Prediction } from "../../api/types";
import { percent, probability } from "../format";
import { type Band, BandText, BandWhisker } from "./Band";
import { inOrder } from "./findings";
import { LabelSets } from "./LabelSets";
import { plainName } from "./names";

interface Props {
  prediction: Prediction;
  model: Model | undefined;
  /** The finding that the keys answer. */
  selected?: string | null;
  /** What stands at the end of a finding's row; `about` says what the model says of it. */
  children?: (finding: string, about: string) => ReactNode;
}

export function FindingTable({ prediction, model, selected, children }: Props) {
  // Operating points are those of the version that serves; those of an older prediction are not known.
  const thresholds = model?.version === prediction.model_version ? model.thresholds : null;
  return (
    <>
      <table className="findings">
        <caption className="visually-hidden">Probability of each finding</caption>
        <thead className="visually-hidden">
          <tr>
            <th scope="col">Finding</th>
            <th scope="col">Bar</th>
            <th scope="col">Probability</th>
            {children && <th scope="col">Verdict</th>}
          </tr>
        </thead>
        <tbody>
          {inOrder(prediction).map((finding) => (
            <Row
              key={finding}
              finding={finding}
              value={prediction.probabilities[finding] ?? null}
              band={prediction.confidence === null ? undefined : (prediction.confidence[finding] ?? null)}
              positive={prediction.positives.includes(finding)}
              threshold={thresholds?.[finding] ?? null}
              selected={finding === selected}
            >
              {children}
            </Row>
          ))}
        </tbody>
      </table>
      <p className="findings-note">
        {thresholds
          ? "Bold: reaches its operating point, the tick on the bar."
          : `Bold: reached its operating point. Version ${prediction.model_version} does not serve now, so the points are not shown.`}
        {prediction.confidence &&
          " Under a name: of 100 validation films with a like score, how many had the finding (95 % interval, the line on the bar), and how many such films there were (n)."}
      </p>
      {prediction.label_sets && <LabelSets sets={prediction.label_sets} findings={inOrder(prediction)} />}
    </>
  );
}

interface RowProps {
  finding: string;
  value: number | null;
  /** Undefined where the version has no bands, null where it has none for this value. */
  band: Band | null | undefined;
  positive: boolean;
  threshold: number | null;
  selected: boolean;
  children: Props["children"];
}

function Row({ finding, value, band, positive, threshold, selected, children }: RowProps) {
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (selected) row.current?.scrollIntoView({ block: "nearest" });
  }, [selected]);
  const name = plainName(finding);
  return (
    <tr ref={row} data-positive={positive} data-selected={selected}>
      <th scope="row">
        {name}
        {positive && <span className="visually-hidden">, reaches its operating point</span>}
        {selected && <span className="visually-hidden">, selected</span>}
        {band !== undefined && value !== null && <BandText band={band} />}
      </th>
      {value === null ? (
        <td colSpan={2} className="finding-unknown">
          not scored: undefined
        </td>
      ) : (
        <>
          <td className="finding-bar">
            <Bar value={value} band={band} threshold={threshold} />
          </td>
          <td className="finding-number">{probability(value)}</td>
        </>
      )}
      {children && <td>{value !== null && children(finding, `${name}, model says ${positive ? "yes" : "no"}`)}</td>}
    </tr>
  );
}

function Bar({ value, band, threshold }: Pick<RowProps, "band" | "threshold"> & { value: number }) {
  return (
    <span className="bar" title={threshold === null ? undefined : `operating point ${probability(threshold)}`}>
      <span className="bar-value" style={{ width: percent(value) }} />
      {band && <BandWhisker band={band} />}
      {threshold !== null && <span className="bar-tick" style={{ left: percent(threshold) }} />}
    </span>
  );
}
