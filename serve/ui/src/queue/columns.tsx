/** The columns of the queue, and what a row says in each. */
import type { ReactNode } from "react";
import { go, studyPath } from "../app/route";
import type { Study } from "../api/types";
import { BucketMark } from "./BucketMark";
import { isTaken } from "./position";
import { toSpan, toTime } from "./time";

/** What a cell needs besides its study. */
export interface RowContext {
  now: number;
  reader: string | null;
  left: Set<string>;
}

interface Column {
  /** Also its class. */
  name: string;
  heading: string;
  cell: (study: Study, context: RowContext) => ReactNode;
}

const BUCKET: Column = {
  name: "priority",
  heading: "Priority",
  cell: (study) => <BucketMark bucket={study.bucket} />,
};
const WAITING: Column = { name: "waiting", heading: "Waiting", cell: renderWaiting };
const SCORE: Column = { name: "score", heading: "Score", cell: (study) => study.score?.toFixed(2) };
const DRIVERS: Column = { name: "drivers", heading: "Findings behind the score", cell: renderDrivers };
const OTHERS: Column[] = [
  { name: "view", heading: "View", cell: (study) => study.view },
  { name: "age", heading: "Age", cell: (study) => study.age_years !== null && Math.floor(study.age_years) },
  { name: "sex", heading: "Sex", cell: (study) => study.sex },
  { name: "source", heading: "Source", cell: (study) => [study.source, study.split].filter(Boolean).join(", ") },
  { name: "name", heading: "Study", cell: renderName },
  { name: "state", heading: "Reader", cell: renderState },
];

export const COLUMNS = [BUCKET, WAITING, SCORE, DRIVERS, ...OTHERS];
/** Where the endpoint gives flags alone. */
export const FLAG_COLUMNS = [BUCKET, WAITING, ...OTHERS];

function renderWaiting(study: Study, { now }: RowContext): ReactNode {
  const span = toSpan(now - Date.parse(study.received_at));
  if (study.reviewed_at) return <span className="muted">received {toTime(study.received_at)}</span>;
  return study.escalated ? (
    <span className="overdue">
      {span}
      <span className="tag">overdue</span>
    </span>
  ) : (
    span
  );
}

function renderDrivers(study: Study): ReactNode {
  const drivers = (study.drivers ?? []).filter(([, weighted]) => weighted >= 0.01);
  if (!drivers.length) return <span className="muted">none</span>;
  return drivers.map(([finding, weighted], index) => (
    <span key={finding} className={study.positives?.includes(finding) ? "driver positive" : "driver"}>
      {toWords(finding)} {weighted.toFixed(2)}
      {index < drivers.length - 1 && ", "}
    </span>
  ));
}

function renderName(study: Study): ReactNode {
  const path = studyPath(study.image_id);
  const name = study.study_id ?? study.file_name ?? study.image_id.slice(0, 12);
  return (
    <a
      href={path}
      tabIndex={-1}
      title={[study.file_name, study.study_id, study.patient_key].filter(Boolean).join("\n") || study.image_id}
      onClick={(event) => {
        event.stopPropagation();
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        go(path);
      }}
    >
      {name}
      {study.images > 1 && <span className="muted"> · {study.images} films</span>}
    </a>
  );
}

function renderState(study: Study, { reader, left }: RowContext): ReactNode {
  if (study.reviewed_at) return <span className="read">read {toTime(study.reviewed_at)}</span>;
  if (isTaken(study, reader)) return <span className="taken">with {study.claimed_by}</span>;
  return left.has(study.image_id) && <span className="read">no longer here</span>;
}

/** `Pleural_Thickening` as `Pleural Thickening`. */
export function toWords(finding: string): string {
  return finding.replaceAll("_", " ");
}
