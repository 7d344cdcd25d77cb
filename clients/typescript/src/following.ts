import { ApiError } from "./errors.js";

/** How long the API counts as away that has shown a job, and in whose place a proxy answers. */
const FOREIGN_MS = 15_000;

/** What is known of a job that is followed: whether the API has shown it, and since when other servers answer. */
export class Following {
  private foreignSince: number | null = null;

  /** `isKnown`: the API has shown the job, or has taken its request. `now` returns the milliseconds of a clock. */
  constructor(
    private isKnown: boolean,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Note that the API has shown the job. */
  noteJob(): void {
    this.isKnown = true;
    this.foreignSince = null;
  }

  /** Return whether another call can succeed after a refusal. A proxy whose API is away says nothing about a job. */
  canPass(error: ApiError): boolean {
    if (error.retryable) return true;
    if (!error.isForeign || !this.isKnown) return false;
    const now = this.now();
    this.foreignSince ??= now;
    return now - this.foreignSince < FOREIGN_MS;
  }
}
