import type { components } from "./schema.js";

/** The problem document of the API (RFC 9457). */
export type Problem = components["schemas"]["ProblemDocument"];

/** Statuses below 500 of a call that can succeed later: time-out, too early, too many calls. */
const RETRYABLE_STATUSES: ReadonlySet<number> = new Set([408, 425, 429]);

/** What an {@link ApiError} can have beside its status and its code. */
export interface ApiErrorOptions extends ErrorOptions {
  readonly inDoubt?: boolean;
  readonly isForeign?: boolean;
  readonly retryAfter?: number | null;
}

/** The API refused a call, or did not answer: then `status` is 0. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  /**
   * Whether the API can have done what it was asked to do: the answer of this call, or of an earlier try of it, was
   * lost. A request that is made again with `idempotencyKey`, if there is one, is the same job.
   */
  inDoubt: boolean;

  /** Whether the answer is not one of the API, but that of a proxy or a page for signing in. */
  readonly isForeign: boolean;

  /** The key of the call, also where the client has made it; null if the call has none. */
  idempotencyKey: string | null = null;

  /** The seconds after which the API wants the next call; null where it does not say. */
  readonly retryAfter: number | null;

  constructor(
    message: string,
    readonly status: number,
    /** A stable word, such as `unknown_dataset`; empty where there was no problem document. */
    readonly code: string = "",
    readonly problem: Problem | null = null,
    options: ApiErrorOptions = {},
  ) {
    super(message, options);
    this.inDoubt = options.inDoubt ?? false;
    this.isForeign = options.isForeign ?? false;
    this.retryAfter = options.retryAfter ?? null;
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
