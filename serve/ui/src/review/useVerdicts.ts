/** The reader's answers on one prediction, and how they are given and taken back. */

import { useMemo } from "react";

import type { ImageRecord, Prediction, Verdict } from "../api/types";
import { outbox, submit, useOutbox } from "./outbox";
import { newSubmission } from "./submission";
import { type Answer, type Answers, toVerdict, withVerdicts } from "./verdicts";

export interface Verdicts {
  answers: Answers;
  /** Findings that can be answered: those with a probability. */
  findings: string[];
  answer: (finding: string, answer: Answer, notes: string) => void;
  agreeWithRest: (notes: string) => void;
  saveNotes: (notes: string) => void;
}

export function useVerdicts(record: ImageRecord, prediction: Prediction, reader: string): Verdicts {
  const { given, refused } = useOutbox();
  const { image_id, model_version } = prediction;
  const answers = useMemo(() => {
    const stored = record.reviews.filter((one) => one.reviewer === reader && one.model_version === model_version);
    const own = given.filter((one) => one.image_id === image_id && one.model_version === model_version);
    const turnedDown = new Set(refused.map((one) => one.request_id));
    const sent = own.filter((one) => !turnedDown.has(one.request_id)).flatMap((one) => Object.entries(one.verdicts));
    const before = withVerdicts({}, stored.map((one) => [one.finding, one.verdict] as const));
    return withVerdicts(before, sent);
  }, [record.reviews, given, refused, image_id, model_version, reader]);

  const findings = Object.keys(prediction.probabilities).filter((name) => prediction.probabilities[name] !== null);
  const verdictOf = (finding: string, answer: Answer) => toVerdict(answer, prediction.positives.includes(finding));
  const send = (verdicts: Record<string, Verdict>, notes: string) => {
    if (Object.keys(verdicts).length === 0) return;
    submit(newSubmission({ reader, image_id, model_version, verdicts, notes: notes.trim() || null }));
  };
  return {
    answers,
    findings,
    /** The same answer again takes it back. */
    answer: (finding, answer, notes) =>
      send({ [finding]: answers[finding] === answer ? "withdrawn" : verdictOf(finding, answer) }, notes),
    agreeWithRest: (notes) => {
      const open = findings.filter((finding) => !answers[finding]);
      send(Object.fromEntries(open.map((finding) => [finding, verdictOf(finding, "agree")])), notes);
    },
    saveNotes: (notes) =>
      send(Object.fromEntries(Object.entries(answers).map(([finding, answer]) => [finding, verdictOf(finding, answer)])), notes),
  };
}

const undone = new Set<string>();

/** Takes back this reader's last submission of this page that gave a verdict; returns its image, or null. */
export function undoLast(): string | null {
  const { given, refused } = outbox();
  const gone = new Set(refused.map((one) => one.request_id));
  const standing = given.filter((one) => !gone.has(one.request_id) && !undone.has(one.request_id));
  const last = standing.findLast((one) => Object.values(one.verdicts).some((verdict) => verdict !== "withdrawn"));
  if (!last) return null;
  undone.add(last.request_id);
  const verdicts = Object.fromEntries(Object.keys(last.verdicts).map((finding) => [finding, "withdrawn" as Verdict]));
  const { reader, image_id, model_version } = last;
  submit(newSubmission({ reader, image_id, model_version, verdicts, notes: null }));
  return image_id;
}
