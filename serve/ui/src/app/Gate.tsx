/**
 * Lets a reader in. When the session ends, the page behind stays as it is, out of sight, until the same reader is back:
 * no half-written comment is lost.
 */
import { useQueryClient } from "@tanstack/react-query";
import { Activity, useEffect, useRef, useState, type ReactNode } from "react";
import { onSignedOut } from "../api/client";
import { SESSION, useSession } from "../api/queries";
import type { Session } from "../api/types";
import { returnToAddress } from "./returnAddress";
import { SignIn } from "./SignIn";

const LONGEST_TIMER_MS = 2 ** 31 - 1;
const NOTE_MS = 60_000;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel"] as const;

export function Gate({ children }: { children: (session: Session) => ReactNode }) {
  const client = useQueryClient();
  const { data: session, error, refetch } = useSession();
  const [reader, setReader] = useState<Session | null>(null);
  const isIn = session?.signed_in === true;
  const isAnother = isIn && reader !== null && reader.name !== session.name;
  if (isIn && !isAnother && session !== reader) setReader(session);

  useActivity(isIn, () => void refetch());
  useEffect(() => onSignedOut(() => void client.invalidateQueries({ queryKey: SESSION })), [client]);
  useEffect(() => {
    if (isAnother) location.reload(); // what one reader saw is not for the next
    else if (isIn) returnToAddress();
  }, [isIn, isAnother]);
  useEffect(() => {
    if (!isIn || !session.expires_at) return undefined;
    const left = Date.parse(session.expires_at) - Date.now() + 1000;
    const timer = setTimeout(() => void refetch(), Math.min(Math.max(left, 1000), LONGEST_TIMER_MS));
    return () => clearTimeout(timer);
  }, [isIn, session, refetch]);

  if (!session) return error ? <Unavailable error={error} onRetry={() => void refetch()} /> : <div className="page" />;
  if (isAnother) return null;
  return (
    <>
      {!isIn && <SignIn session={session} wasSignedIn={reader !== null} />}
      {reader && <Activity mode={isIn ? "visible" : "hidden"}>{children(reader)}</Activity>}
    </>
  );
}

function Unavailable({ error, onRetry }: { error: Error; onRetry: () => void }) {
  return (
    <main className="sign-in">
      <h1>ChestAI</h1>
      <p role="alert">{error.message}</p>
      <button type="button" onClick={onRetry}>
        Try again
      </button>
    </main>
  );
}

/**
 * Calls back once a minute if the reader used keyboard, mouse or touch since the last time. What the page asks by itself
 * keeps no session open; a reader who moves the film and asks nothing does, by this.
 */
function useActivity(enabled: boolean, onActive: () => void): void {
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
