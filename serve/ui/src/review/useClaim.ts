/** Tells other readers that this study is being read, as long as it is. */

import { useEffect, useState } from "react";

import { ApiError, request, withQuery } from "../api/client";

const PROLONG_MS = 60_000; // of the five minutes that a claim holds

/** Claims the study while the component is shown; returns who else reads it, as the endpoint says it, or null. */
export function useClaim(imageId: string, enabled: boolean): string | null {
  const [conflict, setConflict] = useState<string | null>(null);
  useEffect(() => {
    if (!enabled) return;
    const path = `/studies/${imageId}/claim`;
    let left = false;
    let held: Promise<boolean> = Promise.resolve(false);
    const claim = async (refresh: boolean) => {
      try {
        await request("POST", withQuery(path, { refresh: refresh || null }));
        if (!left) setConflict(null);
        return true;
      } catch (error) {
        const taken = error instanceof ApiError && error.status === 409;
        if (!left && taken) setConflict(error.message);
        return false; // any other error: the study can be read all the same
      }
    };
    const prolong = (refresh: boolean) => {
      if (document.visibilityState === "visible") held = held.then(() => claim(refresh));
    };
    const onReturn = () => prolong(false);
    const release = () => {
      left = true;
      void held.then((mine) => {
        if (mine) void fetch(path, { method: "DELETE", credentials: "same-origin", keepalive: true });
      });
    };
    prolong(false);
    const timer = window.setInterval(() => prolong(true), PROLONG_MS);
    document.addEventListener("visibilitychange", onReturn);
    window.addEventListener("pagehide", release);
    return () => {
      window.clearInterval(timer);
      document.removeEventListener("visibilitychange", onReturn);
      window.removeEventListener("pagehide", release);
      release();
    };
  }, [imageId, enabled]);
  return conflict;
}
