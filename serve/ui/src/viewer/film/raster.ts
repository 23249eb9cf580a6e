/** PNG and JPEG films: the browser decodes them, and Cornerstone gets one byte a pixel. */

import { type Types, utilities } from "@cornerstonejs/core";

import type { Decoded } from "./decoded";

const SCHEME = "raster:";
const CHANNELS = 4; // RGBA of a canvas
const RED = 0.299; // Rec. 601 luma, as the endpoint's decoder takes it; a grey pixel stays what it is
const GREEN = 0.587;
const BLUE = 0.114;

const sizes = new Map<string, { width: number; height: number }>();
let count = 0;

/** Decodes a PNG or JPEG. Rejects if the browser cannot. */
export async function decodeRaster(blob: Blob): Promise<Decoded> {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const pixels = greyPixels(bitmap);
  bitmap.close();
  count += 1;
  const id = `${SCHEME}${count}`;
  sizes.set(id, { width, height });
  return {
    image: describe(id, pixels, width, height),
    spacing: { row: 1, column: 1, unit: "px" },
    presets: [],
    forget: () => sizes.delete(id),
  };
}

function greyPixels(bitmap: ImageBitmap): Uint8Array {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("there is no memory for its pixels");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const grey = new Uint8Array(bitmap.width * bitmap.height);
  for (let pixel = 0, at = 0; pixel < grey.length; pixel += 1, at += CHANNELS) {
    grey[pixel] = Math.round(RED * data[at]! + GREEN * data[at + 1]! + BLUE * data[at + 2]!);
  }
  return grey;
}

function describe(imageId: string, pixels: Uint8Array, width: number, height: number): Types.IImage {
  const voxels = { scalarData: pixels, width, height, numberOfComponents: 1 };
  const image: Omit<Types.IImage, "getCanvas" | "voiLUTFunction"> = {
    imageId,
    dataType: "Uint8Array",
    width,
    height,
    columns: width,
    rows: height,
    minPixelValue: 0,
    maxPixelValue: 255,
    slope: 1,
    intercept: 0,
    windowCenter: 128,
    windowWidth: 256,
    color: false,
    rgba: false,
    invert: false,
    numberOfComponents: 1,
    columnPixelSpacing: 1,
    rowPixelSpacing: 1,
    sizeInBytes: pixels.byteLength,
    voxelManager: utilities.VoxelManager.createImageVoxelManager(voxels),
    getPixelData: () => pixels,
  };
  return image as Types.IImage; // getCanvas is for colour alone
}

/** What Cornerstone asks about a film beside its pixels; undefined for all but rasters. */
export function provideRaster(kind: string, imageId: unknown): unknown {
  const size = typeof imageId === "string" ? sizes.get(imageId) : undefined;
  if (!size) return undefined;
  const { width: columns, height: rows } = size;
  switch (kind) {
    case "imagePixelModule":
      return { ...EIGHT_BITS, rows, columns };
    case "imagePlaneModule":
      return { ...FLAT, rows, columns, frameOfReferenceUID: imageId };
    case "generalSeriesModule":
      return { modality: "DX" };
    default:
      return undefined;
  }
}

const EIGHT_BITS = {
  bitsAllocated: 8,
  bitsStored: 8,
  highBit: 7,
  pixelRepresentation: 0,
  samplesPerPixel: 1,
  photometricInterpretation: "MONOCHROME2",
};
const FLAT = {
  rowPixelSpacing: 1,
  columnPixelSpacing: 1,
  rowCosines: [1, 0, 0],
  columnCosines: [0, 1, 0],
  imageOrientationPatient: [1, 0, 0, 0, 1, 0],
  imagePositionPatient: [0, 0, 0],
};
