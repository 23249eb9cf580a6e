/** Where the reader is in the queue, for the page of a study. */
export interface QueuePosition {
  /** The next study to read in the queue's order; null at its end. */
  next(): string | null;
  previous(): string | null;
  open(imageId: string): void;
  backToQueue(): void;
}
