/** The identity provider sends a reader back to the queue: from there to where the reader was. */
import { go } from "./route";

const STORE = "chestai.return";

export function rememberAddress(): void {
  sessionStorage.setItem(STORE, location.pathname + location.search);
}

export function returnToAddress(): void {
  const path = sessionStorage.getItem(STORE);
  if (path === null) return;
  sessionStorage.removeItem(STORE);
  if (path.startsWith("/ui/")) go(path, true);
}
