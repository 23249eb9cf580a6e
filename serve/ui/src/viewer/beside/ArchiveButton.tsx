/** Asks the archive for earlier films of the patient, and says what came of it. */

import { useMutation, useQueryClient } from "@tanstack/react-query";

import { request } from "../../api/client";
import type { Archive, Priors } from "../../api/types";
import { priorsQuery } from "../next";

export function ArchiveButton({ imageId, archive }: { imageId: string; archive: Archive }) {
  const client = useQueryClient();
  const { queryKey } = priorsQuery(imageId);
  const ask = useMutation({
    mutationFn: () => request<Archive>("POST", `/images/${imageId}/priors`),
    onSuccess: async (asked) => {
      await client.cancelQueries({ queryKey });
      client.setQueryData<Priors>(queryKey, (known) => known && { ...known, archive: asked });
    },
  });
  const isWaiting = ask.isPending || archive.state === "waiting";
  return (
    <span className="archive">
      {/* A button that is disabled would lose the focus, and with it a keyboard's place. */}
      <button type="button" aria-disabled={isWaiting} onClick={() => !isWaiting && ask.mutate()}>
        Priors from the archive
      </button>
      <span role="status">{isWaiting ? "asking the archive…" : (ask.error?.message ?? describe(archive))}</span>
    </span>
  );
}

function describe({ state, films, detail }: Archive): string {
  if (state === "none") return "";
  if (state === "failed") return `nothing came: ${detail}`;
  const count = films === 0 ? "no earlier film" : films === 1 ? "1 earlier film is here" : `${films} earlier films are here`;
  return detail ? `${count} (${detail})` : count;
}
