/** The reader's comment on a study. It goes with the verdicts; on its own it is saved with those that stand. */

import type { RefObject } from "react";

import { useKeys } from "../app/keys";

interface Props {
  field: RefObject<HTMLTextAreaElement | null>;
  text: string;
  onText: (text: string) => void;
  /** Null while there is no verdict that it could be saved with, or nothing new. */
  onSave: (() => void) | null;
}

export function Comment({ field, text, onText, onSave }: Props) {
  useKeys([
    {
      id: "verdict.leaveComment",
      keys: ["Escape"],
      label: "Leave the comment",
      group: "Verdict",
      inText: true,
      run: () => field.current?.blur(),
    },
  ]);
  return (
    <div className="comment">
      <label htmlFor="comment">Comment</label>
      <textarea
        id="comment"
        ref={field}
        rows={2}
        maxLength={10_000}
        value={text}
        onChange={(event) => onText(event.target.value)}
      />
      {onSave && (
        <button type="button" onClick={onSave}>
          Save comment
        </button>
      )}
    </div>
  );
}
