/** Cornerstone, started once a page: its renderer and the workers that decode DICOM. */

import * as cornerstone from "@cornerstonejs/core";
import { init as initDicom } from "@cornerstonejs/dicom-image-loader";

import { provideRaster } from "./raster";

const ENGINE_ID = "chestai";
const CACHE_BYTES = 512 * 1024 * 1024; // a bound for Cornerstone itself; `films.ts` keeps far less
const PROVIDER_PRIORITY = 10_000; // before the providers of DICOM, which know nothing of a PNG
const VIEWPORTS = 2; // current and prior

let engine: cornerstone.RenderingEngine | undefined;

/** The one rendering engine. `?renderer=cpu` keeps it off the GPU; without WebGL Cornerstone keeps off by itself. */
export function renderingEngine(): cornerstone.RenderingEngine {
  engine ??= start();
  return engine;
}

function start(): cornerstone.RenderingEngine {
  const usual = cornerstone.getConfiguration();
  cornerstone.init({ ...usual, rendering: { ...usual.rendering, webGlContextCount: VIEWPORTS } });
  if (new URLSearchParams(window.location.search).get("renderer") === "cpu") cornerstone.setUseCPURendering(true);
  cornerstone.cache.setMaxCacheSize(CACHE_BYTES);
  initDicom({ maxWebWorkers: 1 });
  cornerstone.metaData.addProvider(provideRaster, PROVIDER_PRIORITY);
  return new cornerstone.RenderingEngine(ENGINE_ID);
}
