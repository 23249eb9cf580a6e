/** Requests to the endpoint, and its errors. */
import type { Problem } from "./answers";

/** An answer that is an error: a problem document with a stable code. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

/** No answer: the network or the endpoint is away. */
export class Unreachable extends Error {
  constructor() {
    super("The endpoint does not answer.");
  }
}

type Method = "GET" | "POST" | "DELETE";
type Listener = () => void;

const signedOut = new Set<Listener>();

/** Calls the listener whenever a request is refused because the session has ended; returns how to stop that. */
export function onSignedOut(listener: Listener): () => void {
  signedOut.add(listener);
  return () => signedOut.delete(listener);
}

/** Sends a request; throws ApiError, Unreachable, or the abort of its signal. */
export async function send(method: Method, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, credentials: "same-origin", headers: { Accept: "application/json" } };
  if (body !== undefined) {
    init.headers = { Accept: "application/json", "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  if (signal) init.signal = signal;
  const response = await reach(path, init);
  if (response.ok) return response;
  const error = await toError(response);
  if (error.status === 401 && path !== "/session") signedOut.forEach((listener) => listener());
  throw error;
}

/** Sends a request and returns the JSON of the answer; undefined for 204. */
export async function request<T>(method: Method, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const response = await send(method, path, body, signal);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** A path with the query parameters that have a value. */
export function withQuery(path: string, query: Record<string, string | number | boolean | null | undefined>): string {
  const given = Object.entries(query).flatMap(([name, value]) =>
    value === null || value === undefined || value === "" ? [] : [[name, String(value)]],
  );
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

async function reach(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable();
  }
}

async function toError(response: Response): Promise<ApiError> {
  try {
    const problem = (await response.json()) as Partial<Problem>;
    return new ApiError(response.status, problem.code ?? "unknown", problem.detail ?? response.statusText);
  } catch {
    return new ApiError(response.status, "unknown", response.statusText);
  }
}
