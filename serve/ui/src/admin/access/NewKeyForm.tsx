/** Makes an API key and shows it, once. */
import { useMutation } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { request } from "../../api/client";
import type { Role } from "../../api/types";
import type { ApiKeyRequest, NewApiKey } from "../types";

const ROLES: Role[] = ["reader", "reviewer", "admin"];

export function NewKeyForm({ onDone }: { onDone: () => void }) {
  const [owner, setOwner] = useState("");
  const [role, setRole] = useState<Role | "">("");
  const [days, setDays] = useState("365");
  const make = useMutation({
    mutationFn: (key: ApiKeyRequest) => request<NewApiKey>("POST", "/keys", key),
    onSuccess: onDone,
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    make.mutate({ owner, role: role || null, days: days === "" ? null : Number(days) });
  };
  return (
    <form className="new-key" onSubmit={submit}>
      <label>
        Owner
        <input required value={owner} onChange={(event) => setOwner(event.target.value)} autoComplete="off" />
      </label>
      <label>
        Role
        <select value={role} onChange={(event) => setRole(event.target.value as Role | "")}>
          <option value="">the owner's own</option>
          {ROLES.map((one) => (
            <option key={one}>{one}</option>
          ))}
        </select>
      </label>
      <label>
        Days until it ends
        <input type="number" min="1" max="36500" value={days} onChange={(event) => setDays(event.target.value)} />
      </label>
      <button type="submit" disabled={make.isPending}>
        Make a key
      </button>
      <div role="status">
        {make.error && <p className="problem">{make.error.message}</p>}
        {make.data && (
          <p>
            Copy it now, it is shown once: <code className="anchor">{make.data.key}</code>
          </p>
        )}
      </div>
    </form>
  );
}
