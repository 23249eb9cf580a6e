/** A study: the film as large as possible, beside it what the model says and what the reader says of that. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, type MouseEvent, Suspense, useState } from "react";

import { recordQuery, useModel, useSession, whileAway } from "../api/queries";
import type { Hit } from "../api/types";
import { useKeys } from "../app/keys";
import type { QueuePosition } from "../queue/position";
import { useClaim } from "../review/useClaim";
import { FilmMessage } from "./FilmMessage";
import { hasNumbers, inOrder } from "./model/findings";
import { prefetchStudy, priorsQuery, whileAsked } from "./next";
import { factsOf, StudyHeader } from "./StudyHeader";
import { StudyPanel } from "./StudyPanel";
import "./study.css";
import "./film.css";

const Stage = lazy(() => import("./Stage"));

export default function StudyPage({ imageId, queue }: { imageId: string; queue: QueuePosition }) {
  const client = useQueryClient();
  const session = useSession().data;
  const model = useModel().data;
  const { data: record, error } = useQuery({ ...recordQuery(imageId), refetchInterval: whileAway });
  const { data: priors } = useQuery({ ...priorsQuery(imageId), refetchInterval: whileAsked });
  const mayReview = session?.role === "reviewer" || session?.role === "admin";
  const claimedBy = useClaim(imageId, mayReview && record?.predictions.length !== 0);
  const prediction = record?.predictions[0];
  const previous = queue.previous();
  const [compared, setCompared] = useState<Hit | null>(null);

  const onNext = () => {
    const next = queue.next();
    if (next) queue.open(next);
    else queue.backToQueue();
  };
  useKeys([
    { id: "study.next", keys: ["n"], label: "Next study, without a verdict", group: "Study", run: onNext },
    { id: "study.previous", keys: ["p"], label: "Previous study", group: "Study", run: () => previous && queue.open(previous) },
    { id: "study.queue", keys: ["q", "Escape"], label: "Back to the queue", group: "Study", run: queue.backToQueue },
  ]);

  const prefetchNext = () => {
    const next = queue.next();
    if (next) void prefetchStudy(client, next);
  };
  const overlays = model?.modes.overlays && prediction && hasNumbers(prediction);
  const label = record ? `Chest film. ${factsOf(record.image).join(", ")}` : "Chest film";
  return (
    <main className="study" onClick={leaveButton}>
      <StudyHeader
        imageId={imageId}
        image={record?.image}
        onQueue={queue.backToQueue}
        onPrevious={previous ? () => queue.open(previous) : null}
        onNext={onNext}
      />
      <Suspense fallback={<FilmMessage problem={null} onRetry={() => undefined} />}>
        <Stage
          imageId={imageId}
          label={label}
          positives={overlays ? inOrder(prediction).filter((finding) => prediction.positives.includes(finding)) : []}
          version={prediction?.model_version ?? null}
          priors={priors?.priors ?? []}
          archive={priors?.archive}
          compared={compared}
          onCompare={setCompared}
          onShown={prefetchNext}
        />
      </Suspense>
      <StudyPanel
        imageId={imageId}
        record={record}
        error={error}
        model={model}
        reader={mayReview ? (session?.name ?? null) : null}
        claimedBy={claimedBy}
        compared={compared}
        onCompare={setCompared}
        onNext={onNext}
        onOpen={queue.open}
      />
    </main>
  );
}

/** A button that was clicked by mouse gives the keyboard back, so that Enter does not press it again. */
function leaveButton(event: MouseEvent): void {
  const byMouse = event.detail > 0;
  if (byMouse && document.activeElement instanceof HTMLButtonElement) document.activeElement.blur();
}
