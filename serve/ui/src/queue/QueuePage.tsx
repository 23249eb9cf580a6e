/** The queue: what to read next, and why. */
import { useCallback, useMemo, useRef } from "react";
import { useModel, useSummary } from "../api/queries";
import { Unreachable } from "../api/client";
import type { Model, Study } from "../api/types";
import { useKeys } from "../app/keys";
import { go, studyPath } from "../app/route";
import { COLUMNS, FLAG_COLUMNS } from "./columns";
import { BUCKETS, filterPath, isNarrow, type Filter } from "./filter";
import { Filters } from "./Filters";
import { Grid } from "./Grid";
import type { QueueList } from "./list";
import { isTaken } from "./position";
import { useServerNow } from "./time";
import "./queue.css";
import "./grid.css";

interface Props {
  filter: Filter;
  list: QueueList;
  reader: string | null;
  inHand: string | null;
  onTake: (imageId: string) => void;
}

export default function QueuePage({ filter, list, reader, onTake, ...props }: Props) {
  const { rows, changes } = list;
  const isListed = rows.some((row) => row.image_id === props.inHand);
  const inHand = (isListed && props.inHand) || firstFree(rows, reader);
  const summary = useSummary().data;
  const model = useModel().data;
  const searchField = useRef<HTMLInputElement>(null);
  const now = useServerNow(summary?.at);
  const left = useMemo(() => new Set(changes.left), [changes]);
  const context = useMemo(() => ({ now, reader, left }), [now, reader, left]);
  const open = useCallback((imageId: string) => go(studyPath(imageId)), []);
  useQueueKeys({ filter, list, inHand, onTake, open, searchField });
  const isFlagged = model?.modes.flag_only ?? rows.some((row) => row.score === undefined);

  return (
    <main className="queue">
      <h1 className="visually-hidden">Queue</h1>
      <Filters
        filter={filter}
        summary={summary}
        findings={isFlagged ? [] : (model?.findings ?? Object.keys(summary?.findings ?? {}))}
        searchField={searchField}
        onChange={(changed) => go(filterPath(changed))}
      />
      <Status list={list} model={model} inHand={inHand} escalated={summary?.escalated} limit={summary?.max_wait_minutes} />
      {rows.length ? (
        <Grid
          rows={rows}
          columns={isFlagged ? FLAG_COLUMNS : COLUMNS}
          context={context}
          inHand={inHand}
          isWhole={!list.hasMore}
          onReachEnd={list.loadMore}
          onOpen={open}
        />
      ) : (
        <Nothing filter={filter} list={list} />
      )}
    </main>
  );
}

function firstFree(rows: Study[], reader: string | null): string | null {
  return (rows.find((row) => !isTaken(row, reader)) ?? rows[0])?.image_id ?? null;
}

/** One line above the rows: what the order is, what went wrong, what is new. */
function Status(props: {
  list: QueueList;
  model: Model | undefined;
  inHand: string | null;
  escalated: number | undefined;
  limit: number | undefined;
}) {
  const { list, model, inHand, escalated, limit } = props;
  const count = list.changes.arrived.length + list.changes.left.length + list.changes.moved.length;
  const asOf = list.updatedAt ? new Date(list.updatedAt).toLocaleTimeString("en-GB") : "";
  return (
    <div className="status">
      <p>
        {model && !model.modes.reordering ? "In order of arrival." : "Overdue first, then by priority and score."}
        {Boolean(escalated) && limit !== undefined && (
          <>
            {" "}
            <strong>{escalated?.toLocaleString("en")}</strong> waiting for more than {limit} min.
          </>
        )}
      </p>
      <p className="news" role="status">
        {list.error && list.rows.length > 0 ? (
          <span className="problem">
            {list.error.message} Trying again; this is as of {asOf}.
          </span>
        ) : (
          asOf && <span className="muted">as of {asOf}</span>
        )}
        {count > 0 && (
          <button type="button" disabled={list.isShowing} onClick={() => void list.showChanges(inHand)}>
            Show {count === 1 ? "1 change" : `${count} changes`}
          </button>
        )}
      </p>
    </div>
  );
}

/** What stands in place of the rows. */
function Nothing({ filter, list }: { filter: Filter; list: QueueList }) {
  if (list.isLoading)
    return (
      <p className="nothing" role="status">
        Loading the queue
      </p>
    );
  if (list.error)
    return (
      <div className="nothing" role="alert">
        <h2>{list.error instanceof Unreachable ? "The endpoint does not answer" : "The queue cannot be read"}</h2>
        <p>{list.error instanceof Unreachable ? "Is it running, and the network up?" : list.error.message}</p>
        <button type="button" onClick={list.retry}>
          Try again
        </button>
      </div>
    );
  return (
    <div className="nothing" role="status">
      <h2>{isNarrow(filter) ? "No study matches" : "All studies are read"}</h2>
      <p>
        {isNarrow(filter)
          ? "A search needs a whole study ID, patient key or file name, or the first 6 characters or more of an image ID."
          : "New ones appear here by themselves."}
      </p>
    </div>
  );
}

function useQueueKeys(props: {
  filter: Filter;
  list: QueueList;
  inHand: string | null;
  onTake: (imageId: string) => void;
  open: (imageId: string) => void;
  searchField: { current: HTMLInputElement | null };
}) {
  const { filter, list, inHand, onTake, open, searchField } = props;
  const { rows } = list;
  const group = "Queue";
  const step = (by: number) => {
    const place = Math.max(rows.findIndex((row) => row.image_id === inHand), 0);
    take(rows[Math.min(Math.max(place + by, 0), rows.length - 1)]);
  };
  const take = (row: Study | undefined) => row && onTake(row.image_id);
  const toggle = (bucket: (typeof BUCKETS)[number]) =>
    go(filterPath({ ...filter, bucket: filter.bucket === bucket ? null : bucket }));
  useKeys([
    { id: "queue.next", keys: ["j", "ArrowDown"], label: "Next study", group, run: () => step(1) },
    { id: "queue.previous", keys: ["k", "ArrowUp"], label: "Previous study", group, run: () => step(-1) },
    { id: "queue.down", keys: ["PageDown"], label: "Ten studies down", group, run: () => step(10) },
    { id: "queue.up", keys: ["PageUp"], label: "Ten studies up", group, run: () => step(-10) },
    { id: "queue.first", keys: ["Home"], label: "First study", group, run: () => take(rows[0]) },
    { id: "queue.last", keys: ["End"], label: "Last loaded study", group, run: () => take(rows.at(-1)) },
    {
      id: "queue.open",
      keys: ["Enter", "o"],
      label: "Open the study",
      group,
      run: () => {
        if (inHand) open(inHand);
      },
    },
    { id: "queue.search", keys: ["/"], label: "Search", group, run: () => searchField.current?.focus() },
    { id: "queue.changes", keys: ["r"], label: "Show changes", group, run: () => void list.showChanges(inHand) },
    ...BUCKETS.map((bucket, index) => ({
      id: `queue.${bucket}`,
      keys: [String(index + 1)],
      label: `Only ${bucket}, or all`,
      group,
      run: () => toggle(bucket),
    })),
  ]);
}
