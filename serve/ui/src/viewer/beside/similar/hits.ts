/** Hits of a search, asked for and in words. */

import { request } from "../../../api/client";
import type { Hit, Model, SearchRequest, SearchResult } from "../../../api/types";
import { probability } from "../../format";
import { plainName } from "../../model/names";

/** What is searched beside the film. finding: `labelled:` or `called:` and its name; empty for any. */
export interface Asked {
  text: string;
  view: "" | "PA" | "AP";
  sex: "" | "F" | "M";
  finding: string;
}

export const ANYTHING: Asked = { text: "", view: "", sex: "", finding: "" };

/** Each search is recorded in the audit, so that none is repeated by itself. */
export function similarQuery(imageId: string, asked: Asked) {
  return {
    queryKey: ["similar", imageId, asked],
    queryFn: ({ signal }: { signal: AbortSignal }) =>
      request<SearchResult>("POST", "/search", toRequest(imageId, asked), signal),
    staleTime: Infinity,
    refetchOnReconnect: false,
    retry: false,
  };
}

function toRequest(imageId: string, { text, view, sex, finding }: Asked): Partial<SearchRequest> {
  const [kind, name] = finding.split(":", 2);
  return {
    image_id: imageId,
    text: text || null,
    view: view || null,
    sex: sex || null,
    ...(name && { [kind === "called" ? "called" : "labelled"]: [name] }),
  };
}

/** The findings that a filter can name: all by their label, those with an operating point as the model calls them. */
export function filterable(model: Model): { labelled: string[]; called: string[] } {
  return { labelled: model.findings, called: model.findings.filter((finding) => model.thresholds[finding] != null) };
}

/** View, sex and age, as far as they are known. */
export function factsOf({ view, sex, age_years }: Hit): string {
  const age = age_years === null ? null : `${Math.floor(age_years)} years`;
  return [view, sex, age].filter(Boolean).join(", ");
}

export function distanceOf({ distance }: Hit): string {
  return distance === null ? "" : distance.toFixed(3);
}

/** What its label says is present; null where the source has none, or it is hidden. */
export function labelsOf({ labels }: Hit): string | null {
  if (!labels) return null;
  const known = Object.entries(labels).filter(([, label]) => label !== null);
  const present = known.filter(([, label]) => label).map(([finding]) => plainName(finding));
  return known.length ? present.join(", ") || "none of the findings" : null;
}

/** What the model calls, with its probabilities; null where that is hidden. */
export function callsOf({ positives, probabilities }: Hit): string | null {
  if (!positives || !probabilities) return null;
  return positives.map((finding) => `${plainName(finding)} ${probability(probabilities[finding] ?? 0)}`).join(", ") || "nothing";
}

export function verdictsOf({ verdicts }: Hit): string | null {
  const given = Object.entries(verdicts ?? {}).map(([finding, words]) => `${plainName(finding)} ${words.join(" and ")}`);
  return given.join(", ") || null;
}
