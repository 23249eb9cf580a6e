/** DICOM films: Cornerstone's loader parses and decodes them; what it takes for granted is checked here. */

import { getWebWorkerManager, metaData, type Types } from "@cornerstonejs/core";
import { wadouri } from "@cornerstonejs/dicom-image-loader";
import { utilities } from "@cornerstonejs/metadata";

import type { Decoded, Preset, Spacing } from "./decoded";

const WORKER = "dicomImageLoader";
const DATASET = "naturalized"; // the kind of metadata that is the whole dataset, by keyword
const DECODE_MS = 30_000;

type Dataset = Record<string, unknown>;

let last: Promise<unknown> = Promise.resolve();

/** Decodes a DICOM file, one after the other. Rejects if it is broken or in a form that nobody here decodes. */
export function decodeDicom(blob: Blob): Promise<Decoded> {
  const decoding = last.then(() => decode(blob));
  last = decoding.catch(() => undefined);
  return decoding;
}

async function decode(blob: Blob): Promise<Decoded> {
  const id = wadouri.fileManager.add(blob as File); // only its bytes are read
  const forget = () => {
    wadouri.fileManager.remove(Number(id.split(":")[1]));
    utilities.clearTypedCacheData(DATASET, id);
  };
  try {
    const image = (await inTime(wadouri.loadImageFromNaturalizedMetadata(id).promise)) as Types.IImage;
    const dataset = (metaData.get(DATASET, id) ?? {}) as Dataset;
    checkPixels(image, dataset);
    return { image, spacing: spacingOf(dataset), presets: presetsOf(dataset), forget };
  } catch (error) {
    forget();
    throw error;
  } finally {
    // A decoder that is used again answers a broken file with the pixels of the film before it.
    getWebWorkerManager().terminate(WORKER);
  }
}

async function inTime<T>(decoding: Promise<T>): Promise<T> {
  let timer = 0;
  const late = new Promise<never>((_, reject) => {
    timer = window.setTimeout(() => reject(new Error("decoding took too long")), DECODE_MS);
  });
  return Promise.race([decoding, late]).finally(() => window.clearTimeout(timer));
}

/** Decoders do not report all damage: missing pixels, and values that the file says cannot be, are damage. */
function checkPixels(image: Types.IImage, dataset: Dataset): void {
  const { Rows: rows, Columns: columns, BitsStored: bits, PixelRepresentation: signed } = dataset;
  if (image.rows !== rows || image.columns !== columns) throw new Error("its pixels do not fit its header");
  if (image.getPixelData().length < image.rows * image.columns) throw new Error("pixels are missing");
  if (image.color || typeof bits !== "number") return;
  const range = 2 ** bits;
  const [least, most] = signed === 1 ? [-range / 2, range / 2 - 1] : [0, range - 1];
  const bounds = [least, most].map((value) => value * image.slope + image.intercept);
  const [low, high] = image.isPreScaled || image.preScale?.scaled ? bounds : [least, most];
  if (image.minPixelValue < Math.min(low!, high!) || image.maxPixelValue > Math.max(low!, high!)) {
    throw new Error("its pixels are damaged");
  }
}

/** PixelSpacing is in the patient's or a calibrated plane, ImagerPixelSpacing in the detector's, where all is larger. */
function spacingOf(dataset: Dataset): Spacing {
  const [calibrated, imager] = [numbers(dataset.PixelSpacing), numbers(dataset.ImagerPixelSpacing)];
  const [values, unit] = calibrated.length === 2 ? [calibrated, "mm" as const] : [imager, "mm (imager)" as const];
  const [row, column] = values;
  return row && column && row > 0 && column > 0 ? { row, column, unit } : { row: 1, column: 1, unit: "px" };
}

function presetsOf(dataset: Dataset): Preset[] {
  const [centres, widths] = [numbers(dataset.WindowCenter), numbers(dataset.WindowWidth)];
  const names = list(dataset.WindowCenterWidthExplanation);
  return centres.flatMap((centre, index) => {
    const width = widths[index];
    return width && width > 0 ? [{ name: String(names[index] ?? `window ${index + 1}`), centre, width }] : [];
  });
}

function numbers(value: unknown): number[] {
  return list(value).map(Number).filter(Number.isFinite);
}

function list(value: unknown): unknown[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) || ArrayBuffer.isView(value) ? Array.from(value as ArrayLike<unknown>) : [value];
}
