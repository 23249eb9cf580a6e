/** API keys: who has one, a new one, and the end of one. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { request } from "../../api/client";
import { toTime } from "../../queue/time";
import { NewKeyForm } from "./NewKeyForm";
import { Section } from "../Section";
import { Table } from "../Table";
import type { ApiKey, ApiKeyList } from "../types";

const KEYS = ["keys"];

export function ApiKeys() {
  const client = useQueryClient();
  const query = useQuery({
    queryKey: KEYS,
    queryFn: async ({ signal }) => (await request<ApiKeyList>("GET", "/keys", undefined, signal)).keys,
  });
  const refresh = () => client.invalidateQueries({ queryKey: KEYS });
  return (
    <Section title="API keys" query={query}>
      {(keys) => (
        <>
          <Table
            label="API keys"
            columns={[
              { name: "Owner", cell: (key) => key.owner },
              { name: "Key", cell: (key) => <code>{key.prefix}</code> },
              { name: "May", cell: (key) => key.scopes?.join(", ") ?? "all" },
              { name: "Made", cell: (key) => toTime(key.created_at) },
              { name: "Ends", cell: (key) => (key.expires_at ? toTime(key.expires_at) : "never") },
              { name: "", cell: (key) => <Revoke apiKey={key} onDone={refresh} /> },
            ]}
            rows={keys.filter((key) => key.revoked_at === null)}
            keyOf={(key) => key.prefix}
            empty="No keys."
          />
          <NewKeyForm onDone={refresh} />
        </>
      )}
    </Section>
  );
}

/** Asks once more, in place, because a revoked key never works again. */
function Revoke({ apiKey, onDone }: { apiKey: ApiKey; onDone: () => void }) {
  const [asks, setAsks] = useState(false);
  const revoke = useMutation({
    mutationFn: () => request<void>("DELETE", `/keys/${apiKey.prefix}`),
    onSuccess: onDone,
  });
  const name = `the key ${apiKey.prefix} of ${apiKey.owner}`;
  if (revoke.error) return <span className="problem">{revoke.error.message}</span>;
  if (!asks)
    return (
      <button type="button" aria-label={`Revoke ${name}`} onClick={() => setAsks(true)}>
        Revoke
      </button>
    );
  return (
    <span className="choice">
      <button type="button" autoFocus aria-label={`Revoke ${name} for good`} onClick={() => revoke.mutate()}>
        Revoke for good
      </button>
      <button type="button" onClick={() => setAsks(false)}>
        Keep
      </button>
    </span>
  );
}
