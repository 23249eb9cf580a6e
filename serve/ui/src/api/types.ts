/** Names for the endpoint's JSON. No field is written here: all come from its OpenAPI document. */
import type { Either, Get, With } from "./answers";

export type Session = Get<"/session">;
export type Role = NonNullable<Session["role"]>;

type Page = Get<"/studies">;
type Entry = Page["studies"][number];
type FlaggedEntry = Extract<Entry, Record<"flagged", unknown>>;

/** A study in the queue. With `flag_only` it has `flagged` in place of score, drivers and positives. */
export type Study = Either<Exclude<Entry, FlaggedEntry>, FlaggedEntry>;
export type StudyPage = With<Page, "studies", Study[]>;
export type Bucket = Study["bucket"];
export type Summary = Get<"/studies/summary">;

/** The card of the served model, and the display modes. */
export type Model = Get<"/model">;

export type ImageRecord = Get<"/images/{image_id}">;
export type Image = ImageRecord["image"];
type AnyPrediction = ImageRecord["predictions"][number];
export type FlaggedPrediction = Extract<AnyPrediction, Record<"flagged", unknown>>;
export type Prediction = Exclude<AnyPrediction, FlaggedPrediction>;
export type Verdict = ImageRecord["reviews"][number]["verdict"];

export type Report = Get<"/images/{image_id}/report">;

export type Priors = Get<"/images/{image_id}/priors">;
export type Prior = Priors["priors"][number];
/** What the archive was asked for earlier films, and answered. */
export type Archive = Priors["archive"];
