/**
 * The keyboard: bindings that are active now, and the keys that the reader chose for them.
 *
 * A key is written as `j`, `?`, `Enter`, `Escape`, `Space`, `ArrowDown` or, where Shift makes no other character,
 * `Shift+J`, `Shift+Enter`. Of several active bindings of a key, that of a tool in hand runs, else the one added last.
 */
import { useEffect, useRef, useSyncExternalStore } from "react";

export interface Binding {
  /** Stable name, such as `queue.next`; the reader's own keys are stored under it. */
  id: string;
  /** Keys unless the reader chose others. */
  keys: string[];
  /** What it does, for the list of keys. */
  label: string;
  /** Heading in the list of keys, such as `Queue` or `Film`. */
  group: string;
  run: (event: KeyboardEvent) => void;
  /** Also runs while a text field has the focus. */
  inText?: boolean;
}

interface Settings {
  off: boolean;
  keys: Record<string, string[]>;
}

interface Group {
  bindings: Binding[];
  ofTool: boolean;
}

const STORE = "chestai.keys";
const active = new Set<Group>();
const listeners = new Set<() => void>();
let settings = readSettings();
let listed: Binding[] = [];

/** Makes bindings active while the component is shown. ofTool: whether it is a tool in hand. */
export function useKeys(bindings: Binding[], ofTool = false): void {
  const group = useRef<Group>({ bindings, ofTool });
  useEffect(() => {
    group.current.bindings = bindings;
  });
  const ids = bindings.map((binding) => binding.id).join();
  useEffect(() => {
    const added = group.current;
    active.add(added);
    announce();
    return () => {
      active.delete(added);
      announce();
    };
  }, [ids]);
}

/** All active bindings, and the reader's settings. */
export function useActiveKeys(): { bindings: Binding[]; settings: Settings } {
  const bindings = useSyncExternalStore(subscribe, () => listed);
  return { bindings, settings: useSyncExternalStore(subscribe, () => settings) };
}

/** The keys of a binding: the reader's own, or its usual ones. */
export function keysOf(binding: Pick<Binding, "id" | "keys">): string[] {
  return settings.keys[binding.id] ?? binding.keys;
}

/** Chooses keys for a binding; null returns to the usual ones. */
export function setKeys(id: string, keys: string[] | null): void {
  const { [id]: _, ...others } = settings.keys;
  save({ ...settings, keys: keys ? { ...others, [id]: keys } : others });
}

/** Switches keys of a single character off, for readers whose speech or switch software types them by accident. */
export function setKeysOff(off: boolean): void {
  save({ ...settings, off });
}

/** The name of the key of an event, as above; empty with Ctrl, Alt or Meta, and for Shift alone. */
export function nameOf(event: KeyboardEvent): string {
  if (event.ctrlKey || event.altKey || event.metaKey || event.key === "Shift") return "";
  const key = event.key === " " ? "Space" : event.key;
  const letter = key.length === 1 && key.toLowerCase() !== key.toUpperCase();
  if (letter) return event.shiftKey ? `Shift+${key.toUpperCase()}` : key.toLowerCase();
  return event.shiftKey && key.length > 1 ? `Shift+${key}` : key;
}

function onKeyDown(event: KeyboardEvent): void {
  const name = nameOf(event);
  if (!name || event.defaultPrevented || event.isComposing || document.querySelector("dialog:modal")) return;
  if (settings.off && name.replace("Shift+", "").length === 1) return;
  const inText = isTextField(event.target);
  // A focused button or link keeps the keys that press it.
  const presses = name === "Enter" || name === "Space";
  if (presses && event.target instanceof Element && event.target.closest("button, a, summary, input")) return;
  const binding = [...active]
    .reverse()
    .sort((one, other) => Number(other.ofTool) - Number(one.ofTool))
    .flatMap((group) => group.bindings)
    .find((one) => keysOf(one).includes(name) && (one.inText || !inText));
  if (!binding) return;
  event.preventDefault();
  binding.run(event);
}

function isTextField(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  const input = target instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(target.type);
  return input || target.matches("textarea, select, [contenteditable=true]");
}

function readSettings(): Settings {
  try {
    const stored = JSON.parse(localStorage.getItem(STORE) ?? "{}") as Partial<Settings>;
    return { off: stored.off === true, keys: stored.keys ?? {} };
  } catch {
    return { off: false, keys: {} };
  }
}

function save(changed: Settings): void {
  settings = changed;
  localStorage.setItem(STORE, JSON.stringify(settings));
  announce();
}

function announce(): void {
  listed = [...active].flatMap((group) => group.bindings);
  listeners.forEach((listener) => listener());
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

document.addEventListener("keydown", onKeyDown);
