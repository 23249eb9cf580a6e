/** The types that the OpenAPI document gives to requests and answers, by path. */
import type { components, paths } from "../generated/schema";

type Json<T> = T extends { content: { "application/json": infer Value } } ? Value : never;

/** The answer of `GET path`. */
export type Get<Path extends keyof paths> = paths[Path] extends { get: { responses: { 200: infer Answer } } }
  ? Json<Answer>
  : never;

/** The answer of `POST path`. */
export type Post<Path extends keyof paths> = paths[Path] extends { post: { responses: infer Answers } }
  ? Json<Answers[keyof Answers]>
  : never;

/** The body of `POST path`. */
export type Body<Path extends keyof paths> = paths[Path] extends { post: { requestBody: infer Request } }
  ? Json<Request>
  : never;

/** Every error. */
export type Problem = components["schemas"]["Problem"];

/** Either of two as one type: what only one of them has may be missing. */
export type Either<A, B> = Pick<A & B, keyof A & keyof B> & Partial<A & B>;

/** The same with another type for a field. */
export type With<T, Name extends keyof T, Value> = Omit<T, Name> & Record<Name, Value>;
