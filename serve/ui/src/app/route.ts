/** The address: `/ui/` is the queue, `/ui/studies/<sha256>` a study, `/ui/operation` for operators; the query holds the
 *  queue's filter in all of them. */
import { useSyncExternalStore } from "react";

export type Route = { page: "queue" } | { page: "study"; imageId: string } | { page: "operation" } | { page: "unknown" };

const STUDY = /^\/ui\/studies\/([0-9a-f]{64})\/?$/;
const MOVED = "chestai:moved";

export function toRoute(path: string): Route {
  const imageId = STUDY.exec(path)?.[1];
  if (imageId) return { page: "study", imageId };
  if (/^\/ui\/operation\/?$/.test(path)) return { page: "operation" };
  return /^\/ui\/?$/.test(path) ? { page: "queue" } : { page: "unknown" };
}

/** Path of a study or the queue, with the query of the present address: the filter goes with the reader. */
export function studyPath(imageId: string): string {
  return `/ui/studies/${imageId}${location.search}`;
}

export function queuePath(): string {
  return `/ui/${location.search}`;
}

export function operationPath(): string {
  return `/ui/operation${location.search}`;
}

/** Goes to an address of this page; `replace` leaves no step in the browser's history. */
export function go(path: string, replace = false): void {
  if (path === location.pathname + location.search) return;
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  window.dispatchEvent(new Event(MOVED));
}

export function useAddress(): { path: string; query: string } {
  const address = useSyncExternalStore(subscribe, () => location.pathname + location.search);
  const [path = "", query = ""] = address.split(/\?(.*)/s);
  return { path, query };
}

function subscribe(listener: () => void): () => void {
  window.addEventListener("popstate", listener);
  window.addEventListener(MOVED, listener);
  return () => {
    window.removeEventListener("popstate", listener);
    window.removeEventListener(MOVED, listener);
  };
}
