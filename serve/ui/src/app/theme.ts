/** Dark by default, light or the system's choice on request. */
export type Theme = "dark" | "light" | "auto";

const STORE = "chestai.theme";
const systemIsLight = window.matchMedia("(prefers-color-scheme: light)");

export function theme(): Theme {
  const stored = localStorage.getItem(STORE);
  return stored === "light" || stored === "auto" ? stored : "dark";
}

export function setTheme(chosen: Theme): void {
  localStorage.setItem(STORE, chosen);
  applyTheme();
}

export function applyTheme(): void {
  const chosen = theme();
  document.documentElement.dataset.theme = chosen === "auto" ? (systemIsLight.matches ? "light" : "dark") : chosen;
}

systemIsLight.addEventListener("change", applyTheme);
