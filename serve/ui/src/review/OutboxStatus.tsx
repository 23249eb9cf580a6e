/** Whether the reader's verdicts have arrived, and those that the endpoint refused. */

import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import { forgetStudy } from "../api/queries";
import { plainName } from "../viewer/model/names";
import { discard, onConfirmed, openOutbox, type Outbox, useOutbox } from "./outbox";
import "./review.css";

export function OutboxStatus({ reader }: { reader: string }) {
  const client = useQueryClient();
  const outbox = useOutbox();
  useEffect(() => openOutbox(reader), [reader]);
  useEffect(() => onConfirmed(({ image_id }) => forgetStudy(client, image_id)), [client]);
  return (
    <div className="outbox">
      <p role="status" className={outbox.away ? "outbox-waiting" : "outbox-saved"}>
        {describe(outbox)}
      </p>
      {outbox.refused.map((one) => (
        <p key={one.request_id} role="alert">
          Not saved: {Object.keys(one.verdicts).map(plainName).join(", ")} of {one.image_id.slice(0, 8)}. {one.refusal}{" "}
          <button type="button" onClick={() => discard(one)}>
            Discard
          </button>
        </p>
      ))}
    </div>
  );
}

function describe({ waiting, away, given, safe }: Outbox): string {
  if (waiting.length === 0) return given.length ? "Saved" : "";
  if (!safe) return `${count(waiting.length)} waiting. The browser cannot store them: keep this page open.`;
  return away ? `${count(waiting.length)} waiting: the endpoint does not answer` : "Saving";
}

function count(verdicts: number): string {
  return verdicts === 1 ? "1 verdict" : `${verdicts} verdicts`;
}
