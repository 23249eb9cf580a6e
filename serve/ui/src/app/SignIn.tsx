/** Signs a reader in, with an API key or by way of the identity provider. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { ApiError, request } from "../api/client";
import { SESSION } from "../api/queries";
import type { Session } from "../api/types";
import { rememberAddress } from "./returnAddress";

export function SignIn({ session, wasSignedIn }: { session: Session; wasSignedIn: boolean }) {
  const client = useQueryClient();
  const [key, setKey] = useState("");
  const signIn = useMutation({
    networkMode: "always",
    mutationFn: () => request<Session>("POST", "/session", { api_key: key.trim() }),
    onSuccess: (started) => client.setQueryData(SESSION, started),
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    signIn.mutate();
  };

  return (
    <main className="sign-in">
      <h1>ChestAI</h1>
      <p className="muted">{session.notice}</p>
      {wasSignedIn && <p role="status">Your session has ended. Sign in to go on where you were.</p>}
      {session.methods.includes("oidc") && (
        <a className="button primary" href="/session/oidc" onClick={rememberAddress}>
          Sign in with your institution
        </a>
      )}
      {session.methods.includes("api_key") && (
        <form onSubmit={submit}>
          <label htmlFor="api-key">API key</label>
          <input
            id="api-key"
            type="password"
            autoComplete="current-password"
            autoFocus
            required
            value={key}
            aria-invalid={signIn.isError}
            aria-describedby="sign-in-problem"
            onChange={(event) => setKey(event.target.value)}
          />
          <p id="sign-in-problem" className="problem" role="alert">
            {signIn.error && explain(signIn.error)}
          </p>
          <button type="submit" className={session.methods.includes("oidc") ? "" : "primary"} disabled={signIn.isPending}>
            Sign in
          </button>
        </form>
      )}
    </main>
  );
}

function explain(error: Error): string {
  const isWrong = error instanceof ApiError && (error.status === 401 || error.status === 422);
  return isWrong ? "No such key, or it is no longer valid." : error.message;
}
