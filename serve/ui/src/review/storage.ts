/** Submissions that are not confirmed, in the browser's own storage: each under a key of its own, so that two tabs do not
 * write over each other. They survive a reload, a crash and a sign-out. */

import type { Submission } from "./submission";

const PREFIX = "chestai.verdict.";

export function loadStored(reader: string): Submission[] {
  const stored = Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .flatMap((key) => parse(localStorage.getItem(key)))
    .filter((submission) => submission.reader === reader);
  return stored.sort((a, b) => (a.order < b.order ? -1 : 1));
}

/** Returns false if the browser has no room: then it is in memory alone. */
export function store(submission: Submission): boolean {
  try {
    localStorage.setItem(PREFIX + submission.request_id, JSON.stringify(submission));
    return true;
  } catch {
    return false;
  }
}

export function removeStored(submission: Submission): void {
  localStorage.removeItem(PREFIX + submission.request_id);
}

function parse(text: string | null): Submission[] {
  try {
    const submission = JSON.parse(text ?? "null") as Submission | null;
    return submission?.request_id ? [submission] : [];
  } catch {
    return [];
  }
}
