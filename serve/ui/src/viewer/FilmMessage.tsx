/** What stands in the place of a film that is not shown. */

interface Props {
  /** Why; null while it loads. */
  problem: string | null;
  onRetry: () => void;
}

export function FilmMessage({ problem, onRetry }: Props) {
  return (
    <div className="film-pane film-message">
      {problem === null ? (
        <p role="status">Loading the film.</p>
      ) : (
        <>
          <p role="alert">{problem}</p>
          <button type="button" onClick={onRetry}>
            Try again
          </button>
        </>
      )}
    </div>
  );
}
