/** The answers that only this page reads. */
import type { Role } from "../api/types";

export interface Health {
  status: string;
  model: { name: string; version: number; runtime: string; snapshot: string; synthetic: boolean } | null;
  database: boolean;
}

export type DriftVerdict = "stable" | "moderate" | "drifted" | "unknown";

export interface Drift {
  verdict: DriftVerdict;
  reason: string | null;
  window: { images: number; since: string | null };
  features: { name: string; psi: number | null; ks: number | null; verdict: DriftVerdict; n: number }[];
}

export interface VerdictCounts {
  TP: number;
  FP: number;
  TN: number;
  FN: number;
  unsure: number;
  agreement: number | null;
}

export interface Agreement {
  findings: { finding: string; model_version: number; verdicts: VerdictCounts }[];
  readers: { reviewer: string; verdicts: VerdictCounts }[];
  days: { day: string; verdicts: VerdictCounts }[];
}

export interface Job {
  job_id: string;
  state: "queued" | "running" | "done" | "failed" | "cancelled";
  done: number;
  total: number | null;
  error: string | null;
  created_at: string;
  updated_at: string;
}

export interface ApiKey {
  prefix: string;
  owner: string;
  scopes: string[] | null;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
}

export interface NewKey {
  owner: string;
  role: Role | null;
  days: number | null;
}

export interface AuditCheck {
  rows: number;
  hash: string;
  broken_at: number | null;
  reason: string;
}

export interface Champion {
  version: number;
  registered_at: string;
  gate: string | null;
  description: string;
}
