/** The versions that were champion, the current one first. */
import { useQuery } from "@tanstack/react-query";
import { request } from "../../api/client";
import { toTime } from "../../queue/time";
import { Section } from "../Section";
import { Table } from "../Table";
import type { ModelHistory } from "../types";

export function Champions() {
  const query = useQuery({
    queryKey: ["champions"],
    queryFn: async ({ signal }) =>
      (await request<ModelHistory>("GET", "/model/history", undefined, signal)).champions,
  });
  return (
    <Section title="Champions so far" query={query}>
      {(champions) => (
        <Table
          label="Champions so far"
          columns={[
            { name: "Version", cell: (one) => one.version },
            { name: "Registered", cell: (one) => toTime(one.registered_at) },
            { name: "Promotion gate", cell: (one) => one.gate ?? "not asked" },
            { name: "Evaluation", cell: (one) => one.description || "none" },
          ]}
          rows={champions}
          keyOf={(one) => String(one.version)}
          empty="No version was promoted yet."
        />
      )}
    </Section>
  );
}
