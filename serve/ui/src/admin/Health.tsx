/** Whether model and database respond, and what is served. */
import { useQuery } from "@tanstack/react-query";
import { request } from "../api/client";
import { Section } from "./Section";
import type { Health as Answer } from "./types";

export function Health() {
  const query = useQuery({
    queryKey: ["health"],
    queryFn: ({ signal }) => request<Answer>("GET", "/health", undefined, signal),
    refetchInterval: 15_000,
  });
  return (
    <Section title="Health" query={query}>
      {({ model, database }) => (
        <dl className="facts">
          <dt>Model</dt>
          <dd>
            {model ? `${model.name} version ${model.version}, ${model.runtime}` : <b className="problem">does not respond</b>}
          </dd>
          {model && (
            <>
              <dt>Trained on</dt>
              <dd>
                snapshot {model.snapshot}
                {model.synthetic && ", synthetic films"}
              </dd>
            </>
          )}
          <dt>Database</dt>
          <dd>{database ? "responds" : <b className="problem">does not respond</b>}</dd>
        </dl>
      )}
    </Section>
  );
}
