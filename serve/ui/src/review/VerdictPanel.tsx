/** The model's findings with the reader's answer to each, and the way to the next study. */

import { useRef, useState } from "react";

import type { ImageRecord, Model, Prediction } from "../api/types";
import { FindingTable } from "../viewer/model/FindingTable";
import { inOrder } from "../viewer/model/findings";
import { AnswerButtons } from "./AnswerButtons";
import { Comment } from "./Comment";
import { useReviewKeys } from "./useReviewKeys";
import { undoLast, useVerdicts } from "./useVerdicts";
import "./review.css";

interface Props {
  record: ImageRecord;
  prediction: Prediction;
  model: Model | undefined;
  reader: string;
  onNext: () => void;
  onOpen: (imageId: string) => void;
}

export function VerdictPanel({ record, prediction, model, reader, onNext, onOpen }: Props) {
  const { answers, findings, answer, agreeWithRest, saveNotes } = useVerdicts(record, prediction, reader);
  const [notes, setNotes] = useState("");
  const [savedNotes, setSavedNotes] = useState("");
  const field = useRef<HTMLTextAreaElement>(null);
  const answered = Object.keys(answers).length;
  const open = findings.filter((finding) => !answers[finding]).length;
  const unsaved = answered > 0 && notes.trim() !== savedNotes;

  const give = (finding: string, given: Parameters<typeof answer>[1]) => {
    answer(finding, given, notes);
    setSavedNotes(notes.trim());
  };
  const keepNotes = () => {
    saveNotes(notes);
    setSavedNotes(notes.trim());
  };
  const agreeAndGoOn = () => {
    if (open > 0) agreeWithRest(notes);
    else if (unsaved) saveNotes(notes);
    onNext();
  };
  const undo = () => {
    const imageId = undoLast();
    if (imageId !== null && imageId !== prediction.image_id) onOpen(imageId);
  };
  const shown = inOrder(prediction).filter((finding) => findings.includes(finding));
  const selected = useReviewKeys({
    findings: shown,
    answer: give,
    agreeAndGoOn,
    undo,
    comment: () => field.current?.focus(),
  });

  return (
    <section aria-label="Findings and verdicts">
      <FindingTable prediction={prediction} model={model} selected={selected}>
        {(finding, about) => (
          <AnswerButtons about={about} answer={answers[finding]} onAnswer={(given) => give(finding, given)} />
        )}
      </FindingTable>
      <Comment field={field} text={notes} onText={setNotes} onSave={unsaved ? keepNotes : null} />
      <div className="verdict-actions">
        <button type="button" className="primary" onClick={agreeAndGoOn}>
          {open === 0 ? "Next study" : answered === 0 ? "Agree with all, next" : "Agree with the rest, next"}
          <kbd>Enter</kbd>
        </button>
        <button type="button" onClick={undo}>
          Undo<kbd>U</kbd>
        </button>
        <button type="button" onClick={onNext}>
          Skip<kbd>N</kbd>
        </button>
      </div>
    </section>
  );
}
