/** A draft of the impression in the reader's language, to copy. It is asked for when a reader opens it, not before. */

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { request, withQuery } from "../../api/client";
import type { Report } from "../../api/types";

const OPEN = "chestai.report.open";
const LANGUAGE = "chestai.report.language";

export function ReportDraft({ imageId, version }: { imageId: string; version: number }) {
  const [isOpen, setOpen] = useState(localStorage.getItem(OPEN) === "true");
  const [language, setLanguage] = useState(localStorage.getItem(LANGUAGE));
  const { data, error, refetch } = useQuery({
    queryKey: ["report", imageId, version, language],
    queryFn: ({ signal }) =>
      request<Report>("GET", withQuery(`/images/${imageId}/report`, { language }), undefined, signal),
    enabled: isOpen,
    staleTime: 300_000,
  });

  const toggle = (open: boolean) => {
    setOpen(open);
    localStorage.setItem(OPEN, String(open));
  };
  const choose = (chosen: string) => {
    setLanguage(chosen);
    localStorage.setItem(LANGUAGE, chosen);
  };
  const startAnew = () => {
    localStorage.removeItem(LANGUAGE); // the endpoint may not know it any more
    if (language === null) void refetch();
    else setLanguage(null);
  };

  return (
    <details className="report" open={isOpen} onToggle={(event) => toggle(event.currentTarget.open)}>
      <summary>Impression: draft by research software</summary>
      {isOpen && data && <Draft key={`${data.image_id} ${data.language}`} report={data} onLanguage={choose} />}
      {isOpen && !data && (
        <p role={error ? "alert" : "status"}>
          {error ? `No draft: ${error.message} ` : "Writing the draft."}
          {error && (
            <button type="button" onClick={startAnew}>
              Try again
            </button>
          )}
        </p>
      )}
    </details>
  );
}

function Draft({ report, onLanguage }: { report: Report; onLanguage: (language: string) => void }) {
  const [copied, setCopied] = useState("");
  const copy = () =>
    navigator.clipboard.writeText(report.text).then(
      () => setCopied("Copied"),
      () => setCopied("The browser does not let the page copy: select the text"),
    );
  return (
    <>
      <p className="report-text" lang={report.language}>
        {report.text}
      </p>
      <p className="report-actions">
        <button type="button" onClick={() => void copy()}>
          Copy
        </button>
        <label>
          Language{" "}
          <select value={report.language} onChange={(event) => onLanguage(event.target.value)}>
            {Object.entries(report.languages).map(([code, name]) => (
              <option key={code} value={code}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <span role="status">{copied}</span>
      </p>
      <p className="findings-note">{describe(report)}</p>
    </>
  );
}

function describe({ source, reason, earlier_image_id }: Report): string {
  const parts = [source === "llm" ? "Worded by a language model and held to the findings." : "Worded by a template."];
  if (reason) parts.push(`The language model's text is not used: ${reason.replace("_", " ")}.`);
  if (earlier_image_id) parts.push("Scores are compared with the newest earlier film.");
  return parts.join(" ");
}
