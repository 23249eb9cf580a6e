/** Tells the endpoint that a film which was fetched ahead is looked at now, for the audit. */

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const TRY_AGAIN = new Set([401, 408, 425, 429]); // and everything from 500

/** Asks for the film with the name of what is here already, so nothing is sent; again until the endpoint has heard it. */
export async function tellSeen(imageId: string): Promise<void> {
  const headers = { "If-None-Match": `"${imageId}"` };
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(LONGEST_WAIT_MS, 2 * wait)) {
    const init: RequestInit = { credentials: "same-origin", headers, keepalive: true }; // a page that is left sends it too
    const response = await fetch(`/images/${imageId}/file`, init).catch(() => null);
    if (response && response.status < 500 && !TRY_AGAIN.has(response.status)) return;
    await new Promise((resume) => setTimeout(resume, wait));
  }
}
