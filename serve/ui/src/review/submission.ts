/** Verdicts that a reader gave at once, as they are sent. */

import type { Verdict } from "../api/types";

export interface Submission {
  /** Sent again, the endpoint counts it once. */
  request_id: string;
  reader: string;
  image_id: string;
  model_version: number;
  verdicts: Record<string, Verdict>;
  notes: string | null;
  /** Orders the submissions of a browser: a time, and a count within it. */
  order: string;
  /** Why the endpoint will not have it; null while it waits. */
  refusal: string | null;
}

const UUID_BYTES = 16;
const WIDTH = 15; // digits of a time in milliseconds, and some
let count = 0;

export function newSubmission(given: Omit<Submission, "request_id" | "order" | "refusal">): Submission {
  count += 1;
  const order = `${String(Date.now()).padStart(WIDTH, "0")}-${String(count).padStart(WIDTH, "0")}`;
  return { ...given, request_id: newUuid(), order, refusal: null };
}

/** A random UUID. `crypto.randomUUID` is there on https and localhost alone. */
function newUuid(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(UUID_BYTES));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40; // version 4
  bytes[8] = (bytes[8]! & 0x3f) | 0x80; // its variant
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
