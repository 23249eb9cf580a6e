/** What a reader says of the model's answer, and what the endpoint stores. */

import type { Verdict } from "../api/types";

export type Answer = "agree" | "disagree" | "unsure";

/** Finding -> the reader's answer that stands. */
export type Answers = Readonly<Record<string, Answer>>;

/** The verdict of an answer on a finding that the model calls positive, or does not. */
export function toVerdict(answer: Answer, positive: boolean): Verdict {
  if (answer === "unsure") return "unsure";
  if (positive) return answer === "agree" ? "TP" : "FP";
  return answer === "agree" ? "TN" : "FN";
}

/** The answer that a stored verdict was; null where it was taken back. */
export function toAnswer(verdict: Verdict): Answer | null {
  if (verdict === "withdrawn") return null;
  if (verdict === "unsure") return "unsure";
  return verdict === "TP" || verdict === "TN" ? "agree" : "disagree";
}

/** Applies verdicts to answers, in order. */
export function withVerdicts(answers: Answers, verdicts: Iterable<readonly [string, Verdict]>): Answers {
  const changed: Record<string, Answer> = { ...answers };
  for (const [finding, verdict] of verdicts) {
    const answer = toAnswer(verdict);
    if (answer) changed[finding] = answer;
    else delete changed[finding];
  }
  return changed;
}
