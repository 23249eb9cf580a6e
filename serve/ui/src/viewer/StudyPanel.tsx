/** Beside the film: the bucket, the findings, the verdicts, and where it all comes from; or similar films. */

import { useState } from "react";

import type { Hit, ImageRecord, Model, Verdict } from "../api/types";
import { useKeys } from "../app/keys";
import { BucketMark } from "../queue/BucketMark";
import { VerdictPanel } from "../review/VerdictPanel";
import { About } from "./model/About";
import { FindingTable } from "./model/FindingTable";
import { hasNumbers } from "./model/findings";
import { ReportDraft } from "./model/ReportDraft";
import { Triage } from "./model/Triage";
import { SimilarPanel } from "./beside/similar/SimilarPanel";

interface Props {
  imageId: string;
  record: ImageRecord | undefined;
  error: Error | null;
  model: Model | undefined;
  /** The reader's name; null where this session may not review. */
  reader: string | null;
  claimedBy: string | null;
  /** The similar film that is shown beside this one. */
  compared: Hit | null;
  onCompare: (hit: Hit | null) => void;
  onNext: () => void;
  onOpen: (imageId: string) => void;
}

export function StudyPanel({ imageId, record, error, model, reader, claimedBy, compared, onCompare, onNext, onOpen }: Props) {
  const [isSimilar, setSimilar] = useState(false);
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
      {model?.search && <Tabs isSimilar={isSimilar} onChoose={setSimilar} />}
      {model?.search && isSimilar ? (
        <SimilarPanel imageId={imageId} model={model} compared={compared} onCompare={onCompare} />
      ) : record ? (
        <Answer record={record} model={model} reader={reader} onNext={onNext} onOpen={onOpen} />
      ) : (
        <p role={error ? "alert" : "status"}>{error ? `No record: ${error.message}` : "Loading the record."}</p>
      )}
    </aside>
  );
}

function Tabs({ isSimilar, onChoose }: { isSimilar: boolean; onChoose: (isSimilar: boolean) => void }) {
  useKeys([
    { id: "study.similar", keys: ["s"], label: "Similar films, or the findings", group: "Study", run: () => onChoose(!isSimilar) },
  ]);
  return (
    <div className="panel-tabs" role="group" aria-label="Beside the film">
      <button type="button" aria-pressed={!isSimilar} onClick={() => onChoose(false)}>
        Findings
      </button>
      <button type="button" aria-pressed={isSimilar} onClick={() => onChoose(true)}>
        Similar
      </button>
    </div>
  );
}

type AnswerProps = Pick<Props, "model" | "reader" | "onNext" | "onOpen"> & { record: ImageRecord };

function Answer({ record, model, reader, onNext, onOpen }: AnswerProps) {
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
