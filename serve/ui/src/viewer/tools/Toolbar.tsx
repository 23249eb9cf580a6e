/** Everything that can be done to the film, as buttons; each has a key. */

import type { ReactNode } from "react";

import type { Preset } from "../film/decoded";
import type { Tool } from "../film/gestures";
import { useView, type ViewStore } from "../film/viewStore";
import type { Command } from "./commands";

interface Props {
  store: ViewStore;
  tool: Tool;
  onTool: (tool: Tool) => void;
  commands: Command[];
  presets: Preset[];
  onPreset: (preset: Preset) => void;
  children?: ReactNode;
}

const TOOLS: { tool: Tool; name: string; title: string }[] = [
  { tool: "window", name: "Window", title: "Drag: brightness and contrast (W)" },
  { tool: "pan", name: "Move", title: "Drag: move the film (M)" },
  { tool: "length", name: "Length", title: "Drag: measure a length (L)" },
];

export function Toolbar({ store, tool, onTool, commands, presets, onPreset, children }: Props) {
  const { inverted } = useView(store);
  const pressed: Record<string, boolean | undefined> = { "film.invert": inverted };
  return (
    <div className="film-tools" role="toolbar" aria-label="Film tools">
      <span className="film-tool-group" role="group" aria-label="What dragging does">
        {TOOLS.map((one) => (
          <button
            key={one.tool}
            type="button"
            title={one.title}
            aria-pressed={tool === one.tool}
            onClick={() => onTool(one.tool)}
          >
            {one.name}
          </button>
        ))}
      </span>
      {commands
        .filter((command) => command.button)
        .map((command) => (
          <button
            key={command.id}
            type="button"
            title={`${command.label} (${command.keys[0]?.toUpperCase()})`}
            aria-pressed={command.pressed ?? pressed[command.id]}
            disabled={command.disabled}
            onClick={command.run}
          >
            {command.button}
          </button>
        ))}
      {presets.length > 0 && (
        <select
          aria-label="Window preset of the file"
          value=""
          onChange={(event) => {
            const preset = presets[Number(event.target.value)];
            if (preset) onPreset(preset);
          }}
        >
          <option value="">Preset</option>
          {presets.map((preset, index) => (
            <option key={index} value={index}>
              {preset.name}
            </option>
          ))}
        </select>
      )}
      {children}
    </div>
  );
}
