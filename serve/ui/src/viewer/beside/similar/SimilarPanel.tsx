/** Films that are like this one for the network, the nearest first. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { ApiError } from "../../../api/client";
import type { Hit, Model } from "../../../api/types";
import { HitCard } from "./HitCard";
import { ANYTHING, similarQuery } from "./hits";
import { SimilarForm } from "./SimilarForm";
import "./similar.css";

interface Props {
  imageId: string;
  model: Model;
  /** The hit that is shown beside the film. */
  compared: Hit | null;
  onCompare: (hit: Hit | null) => void;
}

export function SimilarPanel({ imageId, model, compared, onCompare }: Props) {
  const [asked, setAsked] = useState(ANYTHING);
  const { data, error, isFetching } = useQuery({ ...similarQuery(imageId, asked), placeholderData: keepPreviousData });
  const isOfText = error instanceof ApiError && error.status === 422 && asked.text !== "";
  return (
    <section className="similar" aria-label="Similar films">
      <p className="similar-caution">Like this film for the network. Likeness is not a diagnosis.</p>
      <SimilarForm asked={asked} model={model} fault={isOfText ? error.message : null} onAsk={setAsked} />
      {error && !isOfText && <p role="alert">No search: {error.message}</p>}
      {!error && (
        <p className="similar-count" role="status">
          {!data || isFetching ? "Searching." : describe(data.hits.length, data.images)}
        </p>
      )}
      {!error && data && (
        <ol className="hits" aria-busy={isFetching}>
          {data.hits.map((hit) => {
            const shown = compared?.image_id === hit.image_id;
            return <HitCard key={hit.image_id} hit={hit} shown={shown} onCompare={() => onCompare(shown ? null : hit)} />;
          })}
        </ol>
      )}
    </section>
  );
}

function describe(hits: number, images: number): string {
  const among = `of ${images.toLocaleString("en")} images`;
  return hits === 0 ? `None ${among} is like that.` : `The nearest ${hits} ${among}. Left out: copies, and others of this patient where that is known.`;
}
