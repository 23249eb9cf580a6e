/** Which study this is, and the ways out of it. */

import type { Image } from "../api/types";
import { minute } from "./format";

interface Props {
  imageId: string;
  image: Image | undefined;
  onQueue: () => void;
  onPrevious: (() => void) | null;
  onNext: () => void;
}

export function StudyHeader({ imageId, image, onQueue, onPrevious, onNext }: Props) {
  return (
    <header className="study-header">
      <button type="button" onClick={onQueue}>
        Queue
      </button>
      <h1>{image?.file_name ?? image?.study_id ?? imageId.slice(0, 12)}</h1>
      <p className="study-facts">{image ? factsOf(image).join(" · ") : null}</p>
      <nav aria-label="Studies">
        <button type="button" onClick={onPrevious ?? undefined} disabled={!onPrevious}>
          Previous
        </button>
        <button type="button" onClick={onNext}>
          Next
        </button>
      </nav>
    </header>
  );
}

/** What is known of the study; nothing is said of what is not. */
export function factsOf(image: Image): string[] {
  const { view, sex, age_years, source, patient_key, study_id, split, width, height, received_at } = image;
  return [
    view,
    sex,
    age_years === null || age_years === undefined ? null : `${age_years} years`,
    patient_key && `patient ${patient_key}`,
    study_id && `study ${study_id}`,
    source,
    split,
    width && height ? `${width} × ${height}` : null,
    `received ${minute(received_at)}`,
  ].filter((fact): fact is string => Boolean(fact));
}
