import type { QueuePosition } from "../queue/position";

export default function StudyPage({ imageId, queue }: { imageId: string; queue: QueuePosition }) {
  return (
    <main>
      <h1>{imageId.slice(0, 12)}</h1>
      <button type="button" onClick={queue.backToQueue}>
        Queue
      </button>
    </main>
  );
}
