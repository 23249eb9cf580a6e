/** The pages of a reader who is signed in: the queue, a study of it, or the page for operators. */
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Session } from "../api/types";
import { readFilter } from "../queue/filter";
import { useQueueList } from "../queue/list";
import { findNext, findPrevious, type QueuePosition, type Walk } from "../queue/position";
import QueuePage from "../queue/QueuePage";
import { Header } from "./Header";
import { go, queuePath, studyPath, toRoute, useAddress } from "./route";

const StudyPage = lazy(() => import("../viewer/StudyPage"));
const AdminPage = lazy(() => import("../admin/AdminPage"));

export function Pages({ session }: { session: Session }) {
  const { path, query } = useAddress();
  const route = useMemo(() => toRoute(path), [path]);
  const filter = useMemo(() => readFilter(query), [query]);
  const [inHand, setInHand] = useState<string | null>(null);
  const walk = useRef<Walk>({ opened: [], arrived: new Set() });
  const list = useQueueList(filter, route.page !== "unknown");
  const open = route.page === "study" ? route.imageId : null;

  useEffect(() => {
    if (!open) return;
    setInHand(open);
    if (walk.current.opened.at(-1) !== open) walk.current.opened.push(open);
  }, [open]);
  useFollowing(list, open, walk.current);

  const position: QueuePosition = {
    next: () => open && findNext(list.rows, open, walk.current, session.name),
    previous: () => open && findPrevious(list.rows, open, walk.current),
    open: useCallback((imageId: string) => go(studyPath(imageId)), []),
    backToQueue: useCallback(() => go(queuePath()), []),
  };

  return (
    <div className="page">
      <Header session={session} />
      {route.page === "queue" && (
        <QueuePage filter={filter} list={list} reader={session.name} inHand={inHand} onTake={setInHand} />
      )}
      {open && (
        <Suspense fallback={<p className="nothing">Loading the viewer</p>}>
          <StudyPage key={open} imageId={open} queue={position} />
        </Suspense>
      )}
      {route.page === "operation" && (
        <Suspense fallback={<p className="nothing">Loading</p>}>
          <AdminPage session={session} />
        </Suspense>
      )}
      {route.page === "unknown" && (
        <main className="nothing">
          <h1>No such page</h1>
          <a href="/ui/">To the queue</a>
        </main>
      )}
      <footer className="notice">{session.notice}</footer>
    </div>
  );
}

/** While a study is open no row can move under the reader's hand: the list takes changes, and loads on, by itself. */
function useFollowing(list: ReturnType<typeof useQueueList>, open: string | null, walk: Walk): void {
  const { arrived, left, moved } = list.changes;
  const isBehind = arrived.length + left.length + moved.length > 0;
  const place = list.rows.findIndex((row) => row.image_id === open);
  useEffect(() => {
    if (!open) return;
    if (isBehind && !list.isShowing)
      void list.showChanges(open).then((ids) => ids.forEach((imageId) => walk.arrived.add(imageId)));
    else if (place >= list.rows.length - 10) list.loadMore();
  });
}
