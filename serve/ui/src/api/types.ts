/** The endpoint's JSON, as far as the page reads it. */

export type Bucket = "urgent" | "soon" | "routine";
export type Role = "reader" | "reviewer" | "admin";
export type Verdict = "TP" | "FP" | "TN" | "FN" | "unsure" | "withdrawn";

export interface Session {
  signed_in: boolean;
  name: string | null;
  role: Role | null;
  expires_at: string | null;
  methods: string[];
  notice: string;
}

/** A study in the queue. With `flag_only` it has `flagged` in place of score, drivers and positives. */
export interface Study {
  image_id: string;
  file_name: string | null;
  received_at: string;
  split: string | null;
  model_version: number;
  bucket: Bucket;
  score?: number;
  drivers?: [string, number][];
  positives?: string[];
  flagged?: boolean;
  reviewed_at: string | null;
  escalated: boolean;
  view: string | null;
  source: string | null;
  patient_key: string | null;
  study_id: string | null;
  age_years: number | null;
  sex: string | null;
  claimed_by: string | null;
  claimed_until: string | null;
}

export interface StudyPage {
  studies: Study[];
  cursor: string | null;
  notice: string;
}

export interface BucketCount {
  total: number;
  unreviewed: number;
}

export interface Summary {
  at: string;
  max_wait_minutes: number;
  total: number;
  unreviewed: number;
  escalated: number;
  buckets: Record<Bucket, BucketCount>;
  splits: Record<string, number>;
  findings: Record<string, number>;
}

export interface Modes {
  overlays: boolean;
  reordering: boolean;
  flag_only: boolean;
}

export interface Triage {
  urgent: number;
  soon: number;
  weights: Record<string, number>;
}

/** The model card of `GET /model`, as far as the page reads it. */
export interface Model {
  version: number;
  name: string;
  findings: string[];
  thresholds: Record<string, number | null>;
  triage: Triage;
  synthetic: boolean;
  modes: Modes;
}

export interface Image {
  image_id: string;
  received_at: string;
  file_name: string | null;
  view: string | null;
  height: number | null;
  width: number | null;
  split: string | null;
  uri: string | null;
  source: string | null;
  patient_key: string | null;
  study_id: string | null;
  age_years: number | null;
  sex: string | null;
}

export interface Prediction {
  image_id: string;
  model_version: number;
  runtime: string;
  probabilities: Record<string, number | null>;
  score: number;
  bucket: Bucket;
  drivers: [string, number][];
  positives: string[];
  snapshot: string;
  at: string;
}

export interface FlaggedPrediction {
  model_version: number;
  flagged: boolean;
  triage: { bucket: Bucket };
  snapshot: string;
  at: string;
}

/** Why no version scored the film, the last time that none did. */
export interface Rejection {
  image_id: string;
  reason: string;
  detail: string;
  at: string;
}

export interface Review {
  image_id: string;
  model_version: number;
  finding: string;
  verdict: Verdict;
  reviewer: string;
  notes: string | null;
  review_id: string;
  at: string;
}

export interface Label {
  finding: string;
  source: string;
  value: number | null;
}

export interface ImageRecord {
  image: Image;
  predictions: (Prediction | FlaggedPrediction)[];
  rejection: Rejection | null;
  reviews: Review[];
  labels: Label[];
  notice: string;
}

export interface Prior {
  image_id: string;
  received_at: string;
  study_id: string | null;
  view: string | null;
  age_years: number | null;
  bucket: Bucket;
  model_version: number;
  reviewed_at: string | null;
}

export interface Claim {
  claimed_by: string;
  claimed_until: string;
}
