/** The bar above every page: where one is, who is signed in, theme and keys. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { request } from "../api/client";
import { SESSION, useModel } from "../api/queries";
import type { Session } from "../api/types";
import { OutboxStatus } from "../review/OutboxStatus";
import { useKeys } from "./keys";
import { KeysDialog } from "./KeysDialog";
import { go, operationPath, queuePath } from "./route";
import { setTheme, theme, type Theme } from "./theme";

const THEMES: [Theme, string][] = [
  ["dark", "Dark"],
  ["light", "Light"],
  ["auto", "Auto"],
];

export function Header({ session }: { session: Session }) {
  const model = useModel().data;
  const [chosen, setChosen] = useState(theme);
  const [showsKeys, setShowsKeys] = useState(false);
  useKeys([
    { id: "app.keys", keys: ["?"], label: "This list of keys", group: "Everywhere", run: () => setShowsKeys(true) },
  ]);
  return (
    <header className="header">
      <PageLink className="name" path={queuePath()}>
        ChestAI <span className="where">Queue</span>
      </PageLink>
      <PageLink className="where" path={operationPath()}>
        Operation
      </PageLink>
      {model && (
        <span className="model muted">
          model {model.version}
          {model.synthetic && ", trained on synthetic films"}
        </span>
      )}
      <span className="gap" />
      {session.name && <OutboxStatus reader={session.name} />}
      <label className="theme">
        <span className="visually-hidden">Theme</span>
        <select
          value={chosen}
          onChange={(event) => {
            setTheme(event.target.value as Theme);
            setChosen(theme());
          }}
        >
          {THEMES.map(([value, word]) => (
            <option key={value} value={value}>
              {word}
            </option>
          ))}
        </select>
      </label>
      <button type="button" onClick={() => setShowsKeys(true)}>
        Keys <kbd aria-hidden="true">?</kbd>
      </button>
      {session.methods.length > 0 && <SignOut session={session} />}
      {showsKeys && <KeysDialog onClose={() => setShowsKeys(false)} />}
    </header>
  );
}

/** A link within this page, which only a plain click follows without loading it anew. */
function PageLink({ className, path, children }: { className: string; path: string; children: ReactNode }) {
  return (
    <a
      className={className}
      href={path}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        go(path);
      }}
    >
      {children}
    </a>
  );
}

function SignOut({ session }: { session: Session }) {
  const client = useQueryClient();
  const signOut = useMutation({
    networkMode: "always",
    mutationFn: () => request<void>("DELETE", "/session"),
    onSuccess: () => location.assign("/ui/"), // a new page: nothing of this reader stays in memory
    onError: () => client.invalidateQueries({ queryKey: SESSION }),
  });
  return (
    <>
      <span className="reader" title={session.role ?? undefined}>
        {session.name}
      </span>
      <button type="button" disabled={signOut.isPending} onClick={() => signOut.mutate()}>
        Sign out
      </button>
    </>
  );
}
