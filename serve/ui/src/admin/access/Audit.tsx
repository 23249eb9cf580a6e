/** The check of the audit chain, on request: it reads every row. */
import { useMutation } from "@tanstack/react-query";
import { request } from "../../api/client";
import type { AuditCheck } from "../types";

export function Audit() {
  const check = useMutation({ mutationFn: () => request<AuditCheck>("GET", "/audit") });
  return (
    <section className="card" aria-labelledby="audit">
      <h2 id="audit">Audit</h2>
      <p>
        <button type="button" disabled={check.isPending} onClick={() => check.mutate()}>
          {check.isPending ? "Checking every row" : "Check the chain"}
        </button>
      </p>
      <div role="status">
        {check.error && <p className="problem">{check.error.message}</p>}
        {check.data && <Outcome {...check.data} />}
      </div>
    </section>
  );
}

function Outcome({ rows, hash, broken_at, reason }: AuditCheck) {
  if (broken_at !== null)
    return (
      <p className="problem">
        Broken at row {broken_at}: {reason}
      </p>
    );
  return (
    <>
      <p>{rows.toLocaleString("en")} rows are as they were written. Store this anchor elsewhere:</p>
      <p>
        <code className="anchor">{`${rows}:${hash}`}</code>
      </p>
    </>
  );
}
