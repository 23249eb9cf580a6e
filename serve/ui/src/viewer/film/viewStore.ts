/** The view that the current film and its prior share. Films follow it at once, React only where it asks. */

import { useSyncExternalStore } from "react";

import { INITIAL, type View } from "./view";

export class ViewStore {
  private view = INITIAL;
  private readonly listeners = new Set<() => void>();

  readonly get = (): View => this.view;

  readonly change = (change: (view: View) => View): void => {
    this.view = change(this.view);
    this.listeners.forEach((listener) => listener());
  };

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };
}

export function useView(store: ViewStore): View {
  return useSyncExternalStore(store.subscribe, store.get);
}
