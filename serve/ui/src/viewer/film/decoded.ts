/** A decoded film: pixels for Cornerstone, and what the viewer must know about them. */

import type { Types } from "@cornerstonejs/core";

/** The distance between pixels, and what it can honestly be called. */
export interface Spacing {
  row: number;
  column: number;
  unit: "px" | "mm" | "mm (imager)";
}

/** A window that the film itself recommends. */
export interface Preset {
  name: string;
  centre: number;
  width: number;
}

export interface Decoded {
  image: Types.IImage;
  spacing: Spacing;
  presets: Preset[];
  /** Frees what was kept beside the pixels. */
  forget: () => void;
}
