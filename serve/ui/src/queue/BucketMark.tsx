/** A bucket as a shape and a word; the colour only repeats them. */
import type { Bucket } from "../api/types";

const SHAPES: Record<Bucket, string> = {
  urgent: "M6 1 11.5 11 .5 11Z",
  soon: "M6 .5 11.5 6 6 11.5 .5 6Z",
  routine: "M6 1.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9Z",
};
export const BUCKET_WORDS: Record<Bucket, string> = { urgent: "Urgent", soon: "Soon", routine: "Routine" };

export function BucketMark({ bucket }: { bucket: Bucket }) {
  return (
    <span className={`bucket bucket-${bucket}`}>
      <svg viewBox="0 0 12 12" aria-hidden="true">
        <path d={SHAPES[bucket]} />
      </svg>
      {BUCKET_WORDS[bucket]}
    </span>
  );
}
