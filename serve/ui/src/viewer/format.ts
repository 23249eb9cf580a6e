/** Dates and numbers as the page shows them: the same everywhere, whatever the browser's language. */

export function day(time: string): string {
  return time.slice(0, 10);
}

/** Local time to the minute: 2025-01-31 14:05. */
export function minute(time: string): string {
  const at = new Date(time);
  const two = (value: number) => String(value).padStart(2, "0");
  const date = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  return `${date} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** A share of 1 as a length of CSS. */
export function percent(value: number): string {
  return `${(100 * value).toFixed(1)}%`;
}

export function probability(value: number): string {
  return value.toFixed(2);
}
