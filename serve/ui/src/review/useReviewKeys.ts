/** The keyboard's way through a study: choose a finding, answer it, agree with the rest and go on. */

import { useState } from "react";

import { useKeys } from "../app/keys";
import type { Answer } from "./verdicts";

interface Steps {
  /** In the order in which they are shown. */
  findings: string[];
  answer: (finding: string, answer: Answer) => void;
  agreeAndGoOn: () => void;
  undo: () => void;
  comment: () => void;
}

const GROUP = "Verdict";

/** Returns the finding that the keys answer; null before one is chosen. */
export function useReviewKeys({ findings, answer, agreeAndGoOn, undo, comment }: Steps): string | null {
  const [selected, select] = useState<string | null>(null);
  const step = (by: number) => {
    const at = selected === null ? (by > 0 ? -1 : 0) : findings.indexOf(selected);
    select(findings[(at + by + findings.length) % findings.length] ?? null);
  };
  const answerSelected = (given: Answer) => {
    const finding = selected ?? findings[0];
    if (finding === undefined) return;
    answer(finding, given);
    select(findings[findings.indexOf(finding) + 1] ?? finding);
  };
  // A key that is held down must not judge what nobody has looked at.
  const key = (name: string, keys: string[], label: string, run: () => void) => ({
    id: `verdict.${name}`,
    keys,
    label,
    group: GROUP,
    run: (event: KeyboardEvent) => event.repeat || run(),
  });
  useKeys([
    key("agreeAll", ["Enter"], "Agree with the rest and go on to the next study", agreeAndGoOn),
    key("nextFinding", ["j"], "Next finding", () => step(1)),
    key("previousFinding", ["k"], "Previous finding", () => step(-1)),
    key("agree", ["a"], "Agree on the finding", () => answerSelected("agree")),
    key("disagree", ["d"], "Disagree on the finding", () => answerSelected("disagree")),
    key("unsure", ["c"], "Cannot say", () => answerSelected("unsure")),
    key("undo", ["u"], "Undo the last verdict", undo),
    key("comment", ["t"], "Write a comment", comment),
  ]);
  return selected;
}
