/** Stands in for the package xmlbuilder2, which nothing here calls. */
export function create(): never {
  throw new Error("XML is not supported");
}
export function decode(): never {
  throw new Error("XML is not supported");
}
