/** The reader's verdicts on their way to the endpoint: kept until it confirms them, sent in order, sent again until then. */

import { useSyncExternalStore } from "react";

import type { Body } from "../api/answers";
import { ApiError, request } from "../api/client";
import { loadStored, removeStored, store } from "./storage";
import type { Submission } from "./submission";

export interface Outbox {
  /** Not confirmed yet, oldest first. */
  waiting: readonly Submission[];
  /** Those that the endpoint will not have, with its reason. */
  refused: readonly Submission[];
  /** Given since the page was loaded, confirmed ones too. */
  given: readonly Submission[];
  /** Whether the endpoint did not answer the last time. */
  away: boolean;
  /** False where the browser could not store one: then this page must stay open. */
  safe: boolean;
}

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const ANSWER_MS = 15_000;
const TRY_AGAIN = new Set([401, 408, 425, 429]); // and everything from 500

let state: Outbox = { waiting: [], refused: [], given: [], away: false, safe: true };
let reader: string | null = null;
let sending = false;
let timer = 0;
let wait = FIRST_WAIT_MS;
const listeners = new Set<() => void>();
const confirmed = new Set<(submission: Submission) => void>();

/** Takes up what this reader has waiting, from before a reload too. */
export function openOutbox(name: string): void {
  if (name !== reader) {
    reader = name;
    const stored = loadStored(name);
    change({
      waiting: stored.filter((one) => one.refusal === null),
      refused: stored.filter((one) => one.refusal !== null),
      given: stored,
      away: false,
      safe: true,
    });
  }
  sendNow();
}

export function submit(submission: Submission): void {
  const safe = store(submission) && state.safe;
  change({ ...state, safe, waiting: [...state.waiting, submission], given: [...state.given, submission] });
  sendNow();
}

/** Gives up a refused submission. */
export function discard(submission: Submission): void {
  removeStored(submission);
  change({
    ...state,
    refused: state.refused.filter((one) => one !== submission),
    given: state.given.filter((one) => one.request_id !== submission.request_id),
  });
}

export function useOutbox(): Outbox {
  return useSyncExternalStore(subscribe, () => state);
}

export function outbox(): Outbox {
  return state;
}

/** Calls back when the endpoint has confirmed a submission, until the returned function is called. */
export function onConfirmed(callback: (submission: Submission) => void): () => void {
  confirmed.add(callback);
  return () => confirmed.delete(callback);
}

function sendNow(): void {
  window.clearTimeout(timer);
  void drain();
}

async function drain(): Promise<void> {
  if (sending) return;
  sending = true;
  try {
    for (let next = state.waiting[0]; next; next = state.waiting[0]) {
      if (!(await deliver(next))) break;
    }
  } finally {
    sending = false;
  }
}

/** Returns whether the next one may be sent: this one is confirmed, or refused for good. */
async function deliver(submission: Submission): Promise<boolean> {
  const { request_id, image_id, model_version, verdicts, notes } = submission;
  const body: Body<"/reviews"> = { request_id, image_id, model_version, verdicts, notes };
  try {
    await request("POST", "/reviews", body, AbortSignal.timeout(ANSWER_MS));
  } catch (error) {
    if (error instanceof ApiError && error.status < 500 && !TRY_AGAIN.has(error.status)) {
      refuse(submission, error.message);
      return true;
    }
    change({ ...state, away: true });
    timer = window.setTimeout(() => void drain(), wait);
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
    return false;
  }
  wait = FIRST_WAIT_MS;
  removeStored(submission);
  leave(submission, {});
  confirmed.forEach((callback) => callback(submission));
  return true;
}

function refuse(submission: Submission, refusal: string): void {
  const refused = { ...submission, refusal };
  store(refused);
  leave(submission, { refused: [...state.refused, refused] });
}

/** Another reader may have signed in meanwhile: then it is not in this reader's list. */
function leave(submission: Submission, others: Partial<Outbox>): void {
  if (submission.reader !== reader) return;
  change({ ...state, ...others, away: false, waiting: state.waiting.filter((one) => one.request_id !== submission.request_id) });
}

function change(changed: Outbox): void {
  state = changed;
  listeners.forEach((listener) => listener());
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

window.addEventListener("online", sendNow);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && sendNow());
