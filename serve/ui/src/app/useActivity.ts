/** What the page asks by itself keeps no session open; a reader who moves the film and asks nothing does, by this. */
import { useEffect, useRef } from "react";

const NOTE_MS = 60_000;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel"] as const;

/** Calls back once a minute if the reader used keyboard, mouse or touch since the last time. */
export function useActivity(enabled: boolean, onActive: () => void): void {
  const latest = useRef(onActive);
  useEffect(() => {
    latest.current = onActive;
  });
  useEffect(() => {
    if (!enabled) return undefined;
    let active = false;
    const note = () => {
      active = true;
    };
    const stop = new AbortController();
    SIGNS.forEach((sign) => window.addEventListener(sign, note, { signal: stop.signal, capture: true, passive: true }));
    const timer = window.setInterval(() => {
      if (active) latest.current();
      active = false;
    }, NOTE_MS);
    return () => {
      stop.abort();
      window.clearInterval(timer);
    };
  }, [enabled]);
}
