/** Beside the film: the bucket, the findings, the verdicts, and where it all comes from. */

import type { ImageRecord, Model, Verdict } from "../api/types";
import { BucketMark } from "../queue/BucketMark";
import { VerdictPanel } from "../review/VerdictPanel";
import { About } from "./model/About";
import { FindingTable } from "./model/FindingTable";
import { hasNumbers } from "./model/findings";
import { ReportDraft } from "./model/ReportDraft";
import { Triage } from "./model/Triage";

interface Props {
  record: ImageRecord | undefined;
  error: Error | null;
  model: Model | undefined;
  /** The reader's name; null where this session may not review. */
  reader: string | null;
  claimedBy: string | null;
  onNext: () => void;
  onOpen: (imageId: string) => void;
}

export function StudyPanel({ record, error, model, reader, claimedBy, onNext, onOpen }: Props) {
  return (
    <aside className="study-panel" aria-label="Model and verdict">
      {claimedBy && (
        <p className="claimed" role="alert">
          {claimedBy}{" "}
          <button type="button" onClick={onNext}>
            Next study
          </button>
        </p>
      )}
      {record ? (
        <Answer record={record} model={model} reader={reader} onNext={onNext} onOpen={onOpen} />
      ) : (
        <p role={error ? "alert" : "status"}>{error ? `No record: ${error.message}` : "Loading the record."}</p>
      )}
    </aside>
  );
}

function Answer({ record, model, reader, onNext, onOpen }: Omit<Props, "record" | "error" | "claimedBy"> & { record: ImageRecord }) {
  const prediction = record.predictions[0];
  if (!prediction) return <p>Not scored: {record.rejection?.detail ?? "no version of the model has scored this film"}.</p>;
  const about = <About record={record} prediction={prediction} model={model} verified={isVerified(record)} />;
  if (!hasNumbers(prediction)) {
    return (
      <>
        <p className="triage">
          <BucketMark bucket={prediction.triage.bucket} /> {prediction.flagged ? "flagged" : "not flagged"}
        </p>
        <p className="findings-note">This endpoint shows flags alone (serve.modes), so there are no findings to judge.</p>
        {about}
      </>
    );
  }
  return (
    <>
      <Triage prediction={prediction} model={model} />
      {reader === null ? (
        <FindingTable prediction={prediction} model={model} />
      ) : (
        <VerdictPanel
          record={record}
          prediction={prediction}
          model={model}
          reader={reader}
          onNext={onNext}
          onOpen={onOpen}
        />
      )}
      <ReportDraft imageId={prediction.image_id} version={prediction.model_version} />
      {about}
    </>
  );
}

/** Whether a verdict stands: of each reader's on each finding, the last counts. */
function isVerified(record: ImageRecord): boolean {
  const last = new Map<string, Verdict>();
  for (const { reviewer, finding, verdict } of record.reviews) last.set(`${reviewer} ${finding}`, verdict);
  return [...last.values()].some((verdict) => verdict !== "withdrawn");
}
