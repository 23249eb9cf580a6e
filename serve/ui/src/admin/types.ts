/** Names for the answers that only this page reads. */
import type { Body, Get, Post } from "../api/answers";

export type Health = Get<"/health">;

export type Drift = Get<"/drift_report">;
export type DriftVerdict = Drift["verdict"];

export type Agreement = Get<"/agreement">;
export type VerdictCounts = Agreement["days"][number]["verdicts"];

export type JobList = Get<"/jobs">;
export type Job = Get<"/jobs/{job_id}">;

export type ApiKeyList = Get<"/keys">;
export type ApiKey = ApiKeyList["keys"][number];
export type ApiKeyRequest = Body<"/keys">;
export type NewApiKey = Post<"/keys">;

export type AuditCheck = Get<"/audit">;

export type ModelHistory = Get<"/model/history">;
