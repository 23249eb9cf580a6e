/** The film, its prior, the tools and the overlay: all that needs Cornerstone, loaded as one chunk. */

import { useEffect, useMemo, useRef, useState } from "react";

import type { Archive, Hit, Prior } from "../api/types";
import { useKeys } from "../app/keys";
import { FilmMessage } from "./FilmMessage";
import { FilmPane } from "./film/FilmPane";
import { useFilm } from "./film/useFilm";
import type { Preset } from "./film/decoded";
import type { Tool } from "./film/gestures";
import { ViewStore } from "./film/viewStore";
import type { FilmViewport } from "./film/viewport";
import { Overlay } from "./overlay/Overlay";
import { OverlayControls } from "./overlay/OverlayControls";
import { useOverlay } from "./overlay/useOverlay";
import { ArchiveButton } from "./beside/ArchiveButton";
import { PriorPane } from "./beside/PriorPane";
import { SimilarPane } from "./beside/similar/SimilarPane";
import { filmCommands } from "./tools/commands";
import { Length, type Segment } from "./tools/Length";
import { Toolbar } from "./tools/Toolbar";

interface Props {
  imageId: string;
  label: string;
  /** Findings whose map may be shown; empty where overlays are off. */
  positives: string[];
  /** The version whose prediction is shown. */
  version: number | null;
  priors: Prior[];
  archive: Archive | undefined;
  /** The similar film that is shown beside this one. */
  compared: Hit | null;
  onCompare: (hit: Hit | null) => void;
  onShown: () => void;
}

export default function Stage({ imageId, label, positives, version, priors, archive, compared, onCompare, onShown }: Props) {
  const store = useMemo(() => new ViewStore(), []);
  const viewport = useRef<FilmViewport | null>(null);
  const { film, problem, fail, retry } = useFilm(imageId);
  const [tool, setTool] = useState<Tool>("window");
  const [segments, setSegments] = useState<Segment[]>([]);
  const [priorShown, setPriorShown] = useState(false);
  const overlay = useOverlay(imageId, positives, version);

  const reset = () => setSegments([]);
  const commands = [
    ...filmCommands(store, () => viewport.current, reset),
    {
      ...key("overlay", ["o"], "Overlay on or off"),
      button: "Overlay",
      pressed: overlay.shown,
      disabled: positives.length === 0,
      run: () => positives.length > 0 && overlay.toggle(),
    },
    { ...key("nextMap", ["Shift+O"], "Overlay of the next finding"), run: overlay.next },
    {
      ...key("prior", ["b"], "Prior beside the film, or not"),
      button: priors.length ? `Prior (${priors.length})` : "No prior",
      pressed: priorShown,
      disabled: priors.length === 0,
      run: () => priors.length > 0 && setPriorShown(!priorShown),
    },
    { ...key("window", ["w"], "Drag: brightness and contrast"), run: () => setTool("window") },
    { ...key("move", ["m"], "Drag: move the film"), run: () => setTool("pan") },
    { ...key("length", ["l"], "Measure a length"), run: () => setTool("length") },
  ];
  useKeys(commands);
  useEffect(() => {
    if (problem) onShown(); // there is nothing more to wait for
  }, [problem]);

  const choosePreset = ({ centre, width }: Preset) => {
    const { windowCenter, windowWidth } = film!.image;
    const [own, ownWidth] = [[windowCenter].flat()[0]!, [windowWidth].flat()[0]!];
    store.change((view) => ({ ...view, window: [(centre - own) / ownWidth, width / ownWidth] }));
  };

  return (
    <section className="stage" aria-label="Film">
      <Toolbar
        store={store}
        tool={tool}
        onTool={setTool}
        commands={commands}
        presets={film?.presets ?? []}
        onPreset={choosePreset}
      >
        {archive && archive.state !== "off" && <ArchiveButton imageId={imageId} archive={archive} />}
      </Toolbar>
      <div className="stage-films">
        {film ? (
          <FilmPane
            film={film}
            store={store}
            tool={tool}
            label={label}
            onFailed={fail}
            onShown={(opened) => {
              viewport.current = opened;
              onShown();
            }}
          >
            {(opened) => (
              <>
                {overlay.shown && overlay.map && (
                  <Overlay viewport={opened} picture={overlay.map.picture} opacity={overlay.opacity} />
                )}
                <Length
                  viewport={opened}
                  film={film}
                  active={tool === "length"}
                  segments={segments}
                  onMeasured={(segment) => setSegments([...segments, segment])}
                />
                {film.caveat && <p className="film-caveat">{film.caveat}</p>}
              </>
            )}
          </FilmPane>
        ) : (
          <FilmMessage problem={problem} onRetry={retry} />
        )}
        {priorShown && <PriorPane priors={priors} store={store} tool={tool} />}
        {compared && <SimilarPane hit={compared} store={store} tool={tool} onClose={() => onCompare(null)} />}
        {overlay.shown && overlay.finding && (
          <OverlayControls
            findings={positives}
            finding={overlay.finding}
            onFinding={overlay.choose}
            opacity={overlay.opacity}
            onOpacity={overlay.setOpacity}
            status={overlay.status}
          />
        )}
      </div>
    </section>
  );
}

function key(name: string, keys: string[], label: string) {
  return { id: `film.${name}`, keys, label, group: "Film" };
}
