/** A Cornerstone viewport that shows one film in a given view. */

import { Enums, getShouldUseCPURendering, type Types, utilities, cache } from "@cornerstonejs/core";

import type { Decoded } from "./decoded";
import { draftOf } from "./draft";
import { renderingEngine } from "./engine";
import type { FilmPoint, View } from "./view";

/** A point of the canvas: CSS pixels from its left edge and from its top. */
export type CanvasPoint = readonly [number, number];

const DEGREE = Math.PI / 180;
const DISTANCE = 1000; // of the camera from the film; any will do in a parallel projection
const REST_MS = 150; // without a change of the window: its drag is over, or pauses

export class FilmViewport {
  private film: Decoded | undefined;
  private view: View | undefined;
  private draft: Types.IImage["render"] | null = null;
  private resting = 0;

  constructor(
    private readonly id: string,
    private readonly element: HTMLDivElement,
  ) {
    renderingEngine().enableElement({ viewportId: id, element, type: Enums.ViewportType.STACK });
  }

  get renderer(): "cpu" | "gpu" {
    return getShouldUseCPURendering() ? "cpu" : "gpu";
  }

  close(): void {
    this.rest();
    renderingEngine().disableElement(this.id);
  }

  async show(film: Decoded, view: View): Promise<void> {
    const { image } = film;
    if (!cache.getImage(image.imageId)) cache.putImageSync(image.imageId, image);
    await this.stack.setStack([image.imageId]);
    this.film = film;
    this.draft = getShouldUseCPURendering() ? draftOf(image) : null;
    this.view = undefined;
    this.apply(view);
  }

  /** Shows the film in a view. */
  apply(view: View): void {
    if (!this.film) return;
    const { window: now, inverted } = view;
    const before = this.view;
    this.view = view;
    if (now !== before?.window || inverted !== before.inverted) {
      this.hurry();
      this.stack.setProperties({ voiRange: this.range(now), invert: this.film.image.invert !== inverted });
    }
    const moved = view.zoom !== before?.zoom || view.centre !== before.centre || view.rotation !== before.rotation;
    if (moved) this.look(view);
    this.stack.render();
  }

  /** Adapts to a new size of the element. */
  resize(): void {
    if (getShouldUseCPURendering()) this.resizeCanvas();
    else renderingEngine().resize(true, true);
    const { view } = this;
    this.view = undefined;
    if (view) this.apply(view);
  }

  /** The zoom at which a pixel of the film is a pixel of the screen. */
  actualSize(): number {
    const { column } = this.pixel();
    return 1 / (column * window.devicePixelRatio * this.fitScale(this.view?.rotation ?? 0));
  }

  toCanvas([x, y]: FilmPoint): CanvasPoint {
    return this.stack.worldToCanvas(this.toWorld([x, y])) as Types.Point2;
  }

  toFilm([x, y]: CanvasPoint): FilmPoint {
    const { origin, across, down, width, height } = this.plane();
    const world = this.stack.canvasToWorld([x, y]);
    const offset = world.map((value, axis) => value - origin[axis]!);
    return [dot(offset, across) / width, dot(offset, down) / height];
  }

  /** Calls back after every drawing of the film, until the returned function is called. */
  onDrawn(callback: () => void): () => void {
    this.element.addEventListener(Enums.Events.IMAGE_RENDERED, callback);
    return () => this.element.removeEventListener(Enums.Events.IMAGE_RENDERED, callback);
  }

  /** Draws drafts while one change of the window follows the other, and all pixels when they end. */
  private hurry(): void {
    if (!this.draft) return;
    const follows = this.resting !== 0;
    window.clearTimeout(this.resting);
    if (follows) this.film!.image.render = this.draft;
    this.resting = window.setTimeout(() => {
      this.rest();
      this.stack.render();
    }, REST_MS);
  }

  private rest(): void {
    window.clearTimeout(this.resting);
    this.resting = 0;
    if (this.film) delete this.film.image.render;
  }

  /** On the CPU Cornerstone sizes the canvas in CSS pixels, and takes it for screen pixels everywhere else. */
  private resizeCanvas(): void {
    const canvas = this.stack.getCanvas();
    canvas.width = Math.round(this.element.clientWidth * window.devicePixelRatio);
    canvas.height = Math.round(this.element.clientHeight * window.devicePixelRatio);
  }

  private get stack(): Types.IStackViewport {
    return renderingEngine().getViewport(this.id) as Types.IStackViewport;
  }

  private range([shift, factor]: View["window"]): { lower: number; upper: number } {
    const { image } = this.film!;
    const [centre, width] = [first(image.windowCenter), first(image.windowWidth)];
    return utilities.windowLevel.toLowHighRange(Math.max(1, width * factor), centre + shift * width);
  }

  /** Points the camera. Both renderers are told the same: the middle, the height in view and what is up. */
  private look({ zoom, centre, rotation }: View): void {
    const { across, down } = this.plane();
    const scale = this.fitScale(rotation) * zoom;
    const focalPoint = this.toWorld(centre);
    const normal = cross(down, across);
    const { row, column } = this.pixel();
    if (getShouldUseCPURendering()) {
      this.stack.setViewPresentation({ rotation });
      this.stack.setCamera({ focalPoint, scale: scale * Math.min(row, column) * window.devicePixelRatio });
      return;
    }
    const [cos, sin] = [Math.cos(rotation * DEGREE), Math.sin(rotation * DEGREE)];
    this.stack.setCamera({
      focalPoint,
      position: focalPoint.map((value, axis) => value + DISTANCE * normal[axis]!) as Types.Point3,
      viewUp: down.map((value, axis) => -cos * value - sin * across[axis]!) as Types.Point3,
      parallelScale: this.element.clientHeight / 2 / scale,
    });
  }

  /** CSS pixels a unit of the film's plane at which the whole film fits. */
  private fitScale(rotation: number): number {
    const { width, height } = this.plane();
    const { clientWidth, clientHeight } = this.element;
    const upright = rotation % 180 === 0;
    return Math.min(clientWidth / (upright ? width : height), clientHeight / (upright ? height : width));
  }

  private toWorld([x, y]: FilmPoint): Types.Point3 {
    const { origin, across, down, width, height } = this.plane();
    return origin.map((value, axis) => value + across[axis]! * x * width + down[axis]! * y * height) as Types.Point3;
  }

  private pixel(): { row: number; column: number } {
    const [column, row] = this.stack.getImageData().spacing;
    return { column, row };
  }

  /** The film in Cornerstone's world: its top left corner, its two directions and its size. */
  private plane() {
    const { origin, direction, dimensions } = this.stack.getImageData();
    const { column, row } = this.pixel();
    const across = Array.from(direction.slice(0, 3));
    const down = Array.from(direction.slice(3, 6));
    // The first pixel's corner is the origin on the CPU; its middle is on the GPU.
    const back = getShouldUseCPURendering() ? 0 : 0.5;
    const corner = origin.map((value, axis) => value - back * (column * across[axis]! + row * down[axis]!));
    return { origin: corner, across, down, width: dimensions[0] * column, height: dimensions[1] * row };
  }
}

function first(value: number | number[]): number {
  return Array.isArray(value) ? value[0]! : value;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a[0]! * b[0]! + a[1]! * b[1]! + a[2]! * b[2]!;
}

function cross(a: readonly number[], b: readonly number[]): number[] {
  return [
    a[1]! * b[2]! - a[2]! * b[1]!,
    a[2]! * b[0]! - a[0]! * b[2]!,
    a[0]! * b[1]! - a[1]! * b[0]!,
  ];
}
