/** How far the latest images have moved from the images that the model was trained on. */
import { useQuery } from "@tanstack/react-query";
import { request, withQuery } from "../../api/client";
import { refreshMark } from "../../api/queries";
import { toTime } from "../../queue/time";
import { Section } from "../Section";
import { Table } from "../Table";
import type { Drift as Answer, DriftVerdict } from "../types";

const RANK: Record<DriftVerdict, number> = { drifted: 0, moderate: 1, unknown: 2, stable: 3 };

export function Drift() {
  const query = useQuery({
    queryKey: ["drift"],
    queryFn: (context) =>
      request<Answer>("GET", withQuery("/drift_report", refreshMark(context)), undefined, context.signal),
    refetchInterval: 60_000,
  });
  return (
    <Section title="Drift" query={query}>
      {({ verdict, reason, window, features }) => (
        <>
          <p>
            <b className={`drift-${verdict}`}>{verdict}</b>, {window.images.toLocaleString("en")} images
            {window.since && ` since ${toTime(window.since)}`}
            {reason && `: ${reason}`}
          </p>
          <Table
            label="Drift by feature"
            columns={[
              { name: "Feature", cell: (one) => one.name },
              { name: "Verdict", cell: (one) => <span className={`drift-${one.verdict}`}>{one.verdict}</span> },
              { name: "PSI", cell: (one) => one.psi?.toFixed(3) ?? "–", number: true },
              { name: "KS", cell: (one) => one.ks?.toFixed(3) ?? "–", number: true },
              { name: "Images", cell: (one) => one.n.toLocaleString("en"), number: true },
            ]}
            rows={[...features].sort((a, b) => RANK[a.verdict] - RANK[b.verdict])}
            keyOf={(one) => one.name}
            empty="No feature is watched."
          />
        </>
      )}
    </Section>
  );
}
