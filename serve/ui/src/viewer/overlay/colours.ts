/** Colours of a map: plasma, which rises evenly in lightness and is told apart by readers who see fewer colours. */

const STOPS = [
  [13, 8, 135],
  [70, 3, 159],
  [114, 1, 168],
  [156, 23, 158],
  [189, 55, 134],
  [216, 87, 107],
  [237, 121, 83],
  [251, 159, 58],
  [253, 202, 38],
  [240, 249, 33],
] as const;
const LEVELS = 256;
const CHANNELS = 4;
const CLEAR = 0.25; // of the peak: below it, the film shows through more and more

/** RGBA of the 256 grey levels of a map, 4 bytes each: the more, the less the film shows through. */
export const TABLE = makeTable();

function makeTable(): Uint8ClampedArray {
  const table = new Uint8ClampedArray(LEVELS * CHANNELS);
  for (let level = 0; level < LEVELS; level += 1) {
    const value = level / (LEVELS - 1);
    const alpha = Math.min(1, value / CLEAR) * (LEVELS - 1);
    table.set([...colourAt(value), alpha], level * CHANNELS);
  }
  return table;
}

function colourAt(value: number): number[] {
  const place = value * (STOPS.length - 1);
  const index = Math.min(STOPS.length - 2, Math.floor(place));
  const [low, high] = [STOPS[index]!, STOPS[index + 1]!];
  return low.map((channel, at) => channel + (high[at]! - channel) * (place - index));
}

/** Colours a grey picture. */
export function colourMap(map: ImageBitmap): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(map, 0, 0);
  const picture = context.getImageData(0, 0, map.width, map.height);
  for (let at = 0; at < picture.data.length; at += CHANNELS) {
    const level = picture.data[at]! * CHANNELS;
    picture.data.set(TABLE.subarray(level, level + CHANNELS), at);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}
