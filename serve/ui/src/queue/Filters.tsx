/** The filter of the queue: buckets with their counts, findings, splits, read or unread, and the search. */
import { useEffect, useRef, useState, type RefObject } from "react";
import type { Summary } from "../api/types";
import { BucketMark } from "./BucketMark";
import { toWords } from "./columns";
import { BUCKETS, isNarrow, readFilter, type Filter, type Reviewed } from "./filter";

interface Props {
  filter: Filter;
  summary: Summary | undefined;
  /** All findings of the model; none where the endpoint hides them. */
  findings: string[];
  searchField: RefObject<HTMLInputElement | null>;
  onChange: (filter: Filter) => void;
}

const REVIEWED: [Reviewed, string][] = [
  ["no", "Unread"],
  ["yes", "Read"],
  ["all", "Unread and read"],
];

export function Filters({ filter, summary, findings, searchField, onChange }: Props) {
  const change = (fields: Partial<Filter>) => onChange({ ...filter, ...fields });
  const splits = Object.keys(summary?.splits ?? {}).sort();
  return (
    <div className="filters" role="search" aria-label="Queue">
      <div className="buckets" role="group" aria-label="Priority">
        {BUCKETS.map((bucket) => (
          <button
            key={bucket}
            type="button"
            aria-pressed={filter.bucket === bucket}
            onClick={() => change({ bucket: filter.bucket === bucket ? null : bucket })}
          >
            <BucketMark bucket={bucket} />
            <span className="count">{countOf(summary, bucket, filter.reviewed)}</span>
          </button>
        ))}
      </div>
      <Choice
        label="Finding"
        value={filter.finding}
        options={findings.map((finding) => [finding, withCount(toWords(finding), summary?.findings[finding])])}
        onChange={(finding) => change({ finding })}
      />
      <Choice
        label="Split"
        value={filter.split}
        options={splits.map((split) => [split, withCount(split, summary?.splits[split])])}
        onChange={(split) => change({ split })}
      />
      <label className="choice">
        <span className="visually-hidden">Read or unread</span>
        <select value={filter.reviewed} onChange={(event) => change({ reviewed: event.target.value as Reviewed })}>
          {REVIEWED.map(([value, word]) => (
            <option key={value} value={value}>
              {word}
            </option>
          ))}
        </select>
      </label>
      <Search key={filter.search} value={filter.search} field={searchField} onSearch={(search) => onChange(searched(filter, search))} />
      {isNarrow(filter) && (
        <button type="button" onClick={() => onChange(readFilter(""))}>
          Show all unread
        </button>
      )}
    </div>
  );
}

/** A choice among names, or any; hidden if there is nothing to choose from. */
function Choice(props: {
  label: string;
  value: string | null;
  options: [string, string][];
  onChange: (value: string | null) => void;
}) {
  const { label, value, options, onChange } = props;
  if (!options.length && value === null) return null;
  const isListed = value === null || options.some(([name]) => name === value);
  return (
    <label className="choice">
      <span className="visually-hidden">{label}</span>
      <select value={value ?? ""} onChange={(event) => onChange(event.target.value || null)}>
        <option value="">{`${label}: any`}</option>
        {!isListed && <option value={value}>{toWords(value)}</option>}
        {options.map(([name, word]) => (
          <option key={name} value={name}>
            {word}
          </option>
        ))}
      </select>
    </label>
  );
}

function Search(props: {
  value: string | null;
  field: RefObject<HTMLInputElement | null>;
  onSearch: (search: string | null) => void;
}) {
  const { value, field, onSearch } = props;
  const [text, setText] = useState(value ?? "");
  const latest = useRef(onSearch);
  useEffect(() => {
    latest.current = onSearch;
  });
  return (
    <form
      className="search"
      onSubmit={(event) => {
        event.preventDefault();
        latest.current(text.trim() || null);
        field.current?.blur();
      }}
    >
      <input
        ref={field}
        type="search"
        aria-label="Search by image, study, patient key or file name"
        placeholder="Image, study, patient, file"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          if (!event.target.value && value) latest.current(null);
        }}
        onKeyDown={(event) => event.key === "Escape" && field.current?.blur()}
      />
    </form>
  );
}

/** A search looks among read studies too, and its end returns to what is usual. */
function searched(filter: Filter, search: string | null): Filter {
  const usual = filter.reviewed === (filter.search ? "all" : "no");
  return { ...filter, search, reviewed: usual ? (search ? "all" : "no") : filter.reviewed };
}

function countOf(summary: Summary | undefined, bucket: (typeof BUCKETS)[number], reviewed: Reviewed): string {
  const count = summary?.buckets[bucket];
  if (!count) return "";
  const { total, unreviewed } = count;
  return { no: unreviewed, yes: total - unreviewed, all: total }[reviewed].toLocaleString("en");
}

function withCount(word: string, count: number | undefined): string {
  return count === undefined ? word : `${word} (${count.toLocaleString("en")})`;
}
