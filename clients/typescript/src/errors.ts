import type { components } from "./schema.js";

/** The problem document of the API (RFC 9457). */
export type Problem = components["schemas"]["ProblemDocument"];

/** Statuses below 500 of a call that can succeed later: time-out, too early, too many calls. */
const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([408, 425, 429]);

/** The API refused a call, or did not answer: then `status` is 0. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    message: string,
    readonly status: number,
    /** A stable word, such as `unknown_dataset`; empty where there was no problem document. */
    readonly code: string = "",
    readonly problem: Problem | null = null,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** Whether the same call can succeed later. */
  get retryable(): boolean {
    return this.status === 0 || RETRYABLE_STATUSES.has(this.status) || this.status >= 500;
  }
}

/** The job ended without a file: it failed, was cancelled, or its file has expired. */
export class JobEndedError extends Error {
  override readonly name = "JobEndedError";

  constructor(readonly job: components["schemas"]["JobView"]) {
    super(job.error?.message ?? `the job is ${job.status}`);
  }
}

/** A file could not be downloaded, or differs from the one that the service wrote. */
export class DownloadError extends Error {
  override readonly name = "DownloadError";
}

/** A webhook that the service has not signed, or that is too old. */
export class WebhookError extends Error {
  override readonly name = "WebhookError";
}
