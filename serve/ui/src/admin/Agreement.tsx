/** How often readers agree with the model: by day, finding and reader. */
import { useQuery } from "@tanstack/react-query";
import { request } from "../api/client";
import { AgreementPlot } from "./AgreementPlot";
import { Section } from "./Section";
import { Table, type Column } from "./Table";
import type { Agreement as Answer, VerdictCounts } from "./types";

const DAYS = 90;
const COUNTS: Column<{ verdicts: VerdictCounts }>[] = [
  { name: "Agree", cell: ({ verdicts }) => toPercent(verdicts.agreement), number: true },
  ...(["TP", "FP", "TN", "FN", "unsure"] as const).map((name) => ({
    name,
    cell: ({ verdicts }: { verdicts: VerdictCounts }) => verdicts[name].toLocaleString("en"),
    number: true,
  })),
];

export function Agreement() {
  const query = useQuery({
    queryKey: ["agreement"],
    queryFn: ({ signal }) => request<Answer>("GET", `/agreement?days=${DAYS}`, undefined, signal),
  });
  return (
    <Section title={`Agreement of readers, last ${DAYS} days`} query={query}>
      {({ findings, readers, days }) => (
        <>
          <AgreementPlot days={days} />
          <Table
            label="Agreement by finding"
            columns={[
              { name: "Finding", cell: (one) => one.finding.replaceAll("_", " ") },
              { name: "Version", cell: (one) => one.model_version, number: true },
              ...COUNTS,
            ]}
            rows={findings}
            keyOf={(one) => `${one.finding} ${one.model_version}`}
            empty="No verdicts yet."
          />
          {readers.length > 0 && (
            <Table
              label="Agreement by reader"
              columns={[{ name: "Reader", cell: (one) => one.reviewer }, ...COUNTS]}
              rows={readers}
              keyOf={(one) => one.reviewer}
              empty=""
            />
          )}
        </>
      )}
    </Section>
  );
}

function toPercent(share: number | null): string {
  return share === null ? "–" : `${(100 * share).toFixed(0)} %`;
}
