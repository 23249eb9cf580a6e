/** What the served model calls positive, and when a study is urgent. */
import { useModel } from "../../api/queries";
import type { Model } from "../../api/types";
import { Section } from "../Section";
import { Table } from "../Table";

export function ModelCard() {
  return (
    <Section title="Model" query={useModel()}>
      {({ version, not_champion, findings, thresholds, triage, modes }) => (
        <>
          {not_champion && (
            <p>
              <b>Not champion</b>: {not_champion}.
            </p>
          )}
          <p>
            Version {version}. Urgent from {triage.urgent}, soon from {triage.soon}: the largest weight × probability of a
            study. {describe(modes)}
          </p>
          <p>
            <a href="/model/card" target="_blank" rel="noopener">
              Model card: evaluation and plots
            </a>
          </p>
          <Table
            label="Findings of the model"
            columns={[
              { name: "Finding", cell: (finding) => finding.replaceAll("_", " ") },
              { name: "Positive from", cell: (finding) => thresholds[finding]?.toFixed(3) ?? "–", number: true },
              { name: "Weight", cell: (finding) => triage.weights[finding]?.toFixed(2) ?? "none", number: true },
            ]}
            rows={findings}
            keyOf={(finding) => finding}
            empty="The model has no findings."
          />
        </>
      )}
    </Section>
  );
}

function describe(modes: Model["modes"]): string {
  const off = [
    ...(modes.flag_only ? ["numbers are hidden"] : []),
    ...(modes.overlays ? [] : ["overlays are off"]),
    ...(modes.reordering ? [] : ["the queue is first in, first out"]),
  ];
  return off.length ? `Display: ${off.join(", ")}.` : "";
}
