/** A grey film drawn on the CPU while its window changes: only pixels in view, and no more of them than the screen has. */

import type { Types } from "@cornerstonejs/core";

type Element = Parameters<NonNullable<Types.IImage["render"]>>[0];
type Stored = Uint8Array | Uint16Array | Int16Array;

interface Reduced {
  /** Pixels of the film along each side of a pixel here. */
  step: number;
  width: number;
  height: number;
  pixels: Stored;
}

const LARGE = 2 ** 21; // pixels; with fewer, Cornerstone is as fast
const OPAQUE = 0xff000000;
const GREY = 0x010101; // times a level: red, green and blue

/** Draws drafts of a large film as Cornerstone draws the film itself; null if there is no need, or no way. */
export function draftOf(image: Types.IImage): Types.IImage["render"] | null {
  const stored = image.getPixelData();
  if (stored.length < LARGE || image.color || image.voiLUT || image.modalityLUT || !isStored(stored)) return null;
  const paper = new Paper();
  let reduced: Reduced = { step: 1, width: image.columns, height: image.rows, pixels: stored };
  return (element) => {
    const { a, b, c, d } = matrixOf(element);
    const step = Math.max(1, Math.floor(1 / Math.max(Math.hypot(a, b), Math.hypot(c, d))));
    if (step !== reduced.step) reduced = reduce(image, stored, step);
    draw(element, reduced, levels(element), paper);
  };
}

function isStored(pixels: Types.PixelDataTypedArray): pixels is Stored {
  return [Uint8Array, Uint16Array, Int16Array].some((type) => pixels instanceof type);
}

/** The means of squares of pixels. What is left over at the right and lower edge is less than a pixel of the screen. */
function reduce({ columns, rows }: Types.IImage, stored: Stored, step: number): Reduced {
  const [width, height] = [Math.floor(columns / step), Math.floor(rows / step)];
  const pixels = new (stored.constructor as new (length: number) => Stored)(width * height);
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 1) {
      let sum = 0;
      for (let row = y * step; row < (y + 1) * step; row += 1) {
        const start = row * columns + x * step;
        for (let from = start; from < start + step; from += 1) sum += stored[from]!;
      }
      pixels[at] = Math.round(sum / (step * step));
    }
  }
  return { step, width, height, pixels };
}

/** What each stored value from the least one on looks like: RGBA as one number. */
function levels({ image, viewport }: Element): Uint32Array {
  const { minPixelValue: least, maxPixelValue: most, slope, intercept, isPreScaled } = image!;
  const { windowCenter: centre, windowWidth: width } = viewport!.voi as { windowCenter: number; windowWidth: number };
  const table = new Uint32Array(most - least + 1);
  for (let index = 0; index < table.length; index += 1) {
    const value = isPreScaled ? least + index : (least + index) * slope + intercept;
    const part = Math.min(1, Math.max(0, (value - centre + 0.5) / (width - 1) + 0.5)); // as DICOM's PS3.3 C.11.2 has it
    table[index] = OPAQUE + GREY * Math.round(255 * (viewport!.invert ? 1 - part : part));
  }
  return table;
}

function draw(element: Element, { step, width, height, pixels }: Reduced, table: Uint32Array, paper: Paper) {
  const [left, top, right, bottom] = inView(element, step, width, height);
  const canvas = element.canvas!;
  const context = canvas.getContext("2d")!;
  context.resetTransform();
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (left >= right || top >= bottom) return;
  const shown = paper.ofSize(right - left, bottom - top);
  const least = element.image!.minPixelValue;
  for (let y = top, at = 0; y < bottom; y += 1) {
    const end = y * width + right;
    for (let from = y * width + left; from < end; from += 1, at += 1) shown[at] = table[pixels[from]! - least]!;
  }
  context.setTransform(matrixOf(element).scale(step));
  context.drawImage(paper.show(), left, top);
}

/** From pixels of the film to those of the canvas. */
function matrixOf({ transform }: Element): DOMMatrix {
  return new DOMMatrix(transform!.getMatrix());
}

/** The reduced film's pixels in view: left, top, right, bottom, with one more around for a smooth edge. */
function inView(element: Element, step: number, width: number, height: number): [number, number, number, number] {
  const { width: across, height: down } = element.canvas!;
  const back = matrixOf(element).scale(step).inverse();
  const corners = [[0, 0], [across, 0], [0, down], [across, down]].map(([x, y]) => back.transformPoint({ x: x!, y: y! }));
  const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
  return [
    Math.max(0, Math.floor(Math.min(...xs)) - 1),
    Math.max(0, Math.floor(Math.min(...ys)) - 1),
    Math.min(width, Math.ceil(Math.max(...xs)) + 1),
    Math.min(height, Math.ceil(Math.max(...ys)) + 1),
  ];
}

/** A canvas whose pixels are kept from one drawing to the next. */
class Paper {
  private readonly context = document.createElement("canvas").getContext("2d")!;
  private picture = new ImageData(1, 1);

  /** RGBA of each pixel, as one number. */
  ofSize(width: number, height: number): Uint32Array {
    if (width !== this.picture.width || height !== this.picture.height) {
      this.picture = new ImageData(width, height);
      Object.assign(this.context.canvas, { width, height });
    }
    return new Uint32Array(this.picture.data.buffer);
  }

  show(): HTMLCanvasElement {
    this.context.putImageData(this.picture, 0, 0);
    return this.context.canvas;
  }
}
