/** Cornerstone, started once a page: its renderer and the workers that decode DICOM. */

import * as cornerstone from "@cornerstonejs/core";
import { init as initDicom } from "@cornerstonejs/dicom-image-loader";

import { provideRaster } from "./raster";

const ENGINE_ID = "chestai";
const CACHE_BYTES = 512 * 1024 * 1024; // a bound for Cornerstone itself; `films.ts` keeps far less
const PROVIDER_PRIORITY = 10_000; // before the providers of DICOM, which know nothing of a PNG
const VIEWPORTS = 2; // current and prior
const EMULATED = /swiftshader|llvmpipe|softpipe|software|basic render/i; // names of WebGL without a GPU

let engine: cornerstone.RenderingEngine | undefined;

/** The one rendering engine. `?renderer=cpu` and `?renderer=gpu` choose where it draws. */
export function renderingEngine(): cornerstone.RenderingEngine {
  engine ??= start();
  return engine;
}

function start(): cornerstone.RenderingEngine {
  const usual = cornerstone.getConfiguration();
  cornerstone.init({ ...usual, rendering: { ...usual.rendering, webGlContextCount: VIEWPORTS } });
  const chosen = new URLSearchParams(window.location.search).get("renderer");
  cornerstone.setUseCPURendering(chosen ? chosen === "cpu" : !hasGpu());
  cornerstone.cache.setMaxCacheSize(CACHE_BYTES);
  initDicom({ maxWebWorkers: 1 });
  cornerstone.metaData.addProvider(provideRaster, PROVIDER_PRIORITY);
  return new cornerstone.RenderingEngine(ENGINE_ID);
}

/** Whether WebGL runs on a GPU. Where the browser emulates one, Cornerstone draws faster on the CPU by itself. */
function hasGpu(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return false;
  const named = context.getExtension("WEBGL_debug_renderer_info");
  const name = named ? String(context.getParameter(named.UNMASKED_RENDERER_WEBGL)) : "";
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return !EMULATED.test(name);
}
