/** A section of the page, which says so while its answer is on the way or away. */
import { useId, type ReactNode } from "react";

interface Props<T> {
  title: string;
  query: { data: T | undefined; error: Error | null };
  children: (data: T) => ReactNode;
}

export function Section<T>({ title, query, children }: Props<T>) {
  const id = useId();
  return (
    <section className="card" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {query.error && (
        <p className="problem" role="status">
          {query.error.message}
        </p>
      )}
      {query.data !== undefined ? children(query.data) : !query.error && <p className="muted">Loading</p>}
    </section>
  );
}
