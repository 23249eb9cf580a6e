/** What likeness is narrowed by: a text, view, sex, a finding. */

import { useState } from "react";

import type { Model } from "../../../api/types";
import { plainName } from "../../model/names";
import { type Asked, filterable } from "./hits";

interface Props {
  asked: Asked;
  model: Model;
  /** Why the text was not understood. */
  fault: string | null;
  onAsk: (asked: Asked) => void;
}

export function SimilarForm({ asked, model, fault, onAsk }: Props) {
  const [text, setText] = useState(asked.text);
  const change = (fields: Partial<Asked>) => onAsk({ ...asked, text: text.trim(), ...fields });
  const { labelled, called } = filterable(model);
  const tells = !model.modes.flag_only;
  return (
    <form
      className="similar-form"
      role="search"
      aria-label="Similar films"
      onSubmit={(event) => {
        event.preventDefault();
        change({});
      }}
    >
      <input
        type="search"
        aria-label="Narrow by words"
        aria-invalid={fault !== null}
        aria-describedby={fault === null ? undefined : "similar-fault"}
        placeholder={tells ? "effusion without edema, over 60" : "female, over 60"}
        maxLength={1000}
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          if (!event.target.value && asked.text) change({ text: "" });
        }}
      />
      <button type="submit">Search</button>
      {fault !== null && (
        <p id="similar-fault" className="similar-fault" role="alert">
          {fault}
        </p>
      )}
      <Choice label="View" value={asked.view} options={["PA", "AP"]} onChange={(view) => change({ view: view as Asked["view"] })} />
      <Choice label="Sex" value={asked.sex} options={["F", "M"]} onChange={(sex) => change({ sex: sex as Asked["sex"] })} />
      {tells && (
        <label>
          <span className="visually-hidden">Finding</span>
          <select value={asked.finding} onChange={(event) => change({ finding: event.target.value })}>
            <option value="">Finding: any</option>
            <Findings heading="By label" kind="labelled" findings={labelled} />
            <Findings heading="By the model" kind="called" findings={called} />
          </select>
        </label>
      )}
    </form>
  );
}

function Findings({ heading, kind, findings }: { heading: string; kind: string; findings: string[] }) {
  return (
    <optgroup label={heading}>
      {findings.map((finding) => (
        <option key={finding} value={`${kind}:${finding}`}>
          {plainName(finding)}
        </option>
      ))}
    </optgroup>
  );
}

function Choice(props: { label: string; value: string; options: string[]; onChange: (value: string) => void }) {
  const { label, value, options, onChange } = props;
  return (
    <label>
      <span className="visually-hidden">{label}</span>
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        <option value="">{`${label}: any`}</option>
        {options.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}
