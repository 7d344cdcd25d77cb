import { randomUUID } from "node:crypto";
import { saveFile, type Progress } from "./download.js";
import { ApiError, JobEndedError } from "./errors.js";
import { parseEventStream } from "./event_stream.js";
import { Http, pause, type ClientOptions } from "./http.js";
import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** What to export; the body of `POST /exports/jobs`. */
export type ExportRequest = Schemas["Order"];
/** The id and the first status of a new job. */
export type Accepted = Schemas["Accepted"];
/** A job, as `GET /exports/jobs/{id}` returns it. */
export type Job = Schemas["JobView"];
/** One of the files of a job. */
export type JobFile = Schemas["FileView"];
/** The datasets that the user can see. */
export type Catalogue = Schemas["Catalogue"];

/** Options of every call. */
export interface CallOptions {
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/** Options of a request. */
export interface RequestOptions extends CallOptions {
  /** The same key and request again are the same job. Default: a new key, under which the call is repeated. */
  readonly idempotencyKey?: string;
}

const MAX_WAIT_SECONDS = 30;
const UNFINISHED: ReadonlySet<string> = new Set(["pending", "processing"]);

/** Whether the job has ended: completed, failed, cancelled or expired. */
export function isFinished(job: Job): boolean {
  return !UNFINISHED.has(job.status);
}

/** Calls the API of one server for one user. */
export class ExportClient {
  private readonly http: Http;

  constructor(url: string, options: ClientOptions) {
    this.http = new Http(url, options);
  }

  /** Request an export; return the id of its job. */
  async request(request: ExportRequest, options: RequestOptions = {}): Promise<Accepted> {
    return this.http.json<Accepted>(order(request, options, 0));
  }

  /** Request an export and wait for its end, so that a small one needs one call; return its job. */
  async requestAndWait(
    request: ExportRequest,
    options: RequestOptions & { readonly onUpdate?: (job: Job) => void } = {},
  ): Promise<Job> {
    const response = await this.http.send(order(request, options, MAX_WAIT_SECONDS));
    const job = (await response.json()) as Job | Accepted;
    return response.status === 200 ? (job as Job) : this.wait(job.export_job_id, options);
  }

  /** Return a job. */
  async job(id: string, options: CallOptions = {}): Promise<Job> {
    return this.http.json<Job>({ method: "GET", path: jobPath(id), repeatable: true, ...options });
  }

  /**
   * Yield the job at once and after each change; the job that has ended comes last.
   *
   * The stream is opened again where it breaks. While it cannot be opened, the job is read now and then.
   */
  async *events(id: string, options: CallOptions = {}): AsyncGenerator<Job, void, void> {
    let last = "";
    let failures = 0;
    for (;;) {
      options.signal?.throwIfAborted();
      try {
        const response = await this.http.send({
          method: "GET",
          path: `${jobPath(id)}/events`,
          headers: { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) },
          repeatable: false,
          waitMs: Infinity,
          ...options,
        });
        if (response.status === 204 || response.body === null) return;
        for await (const event of parseEventStream(response.body)) {
          if (event.event !== "job") continue;
          failures = 0;
          last = event.id;
          const job = JSON.parse(event.data) as Job;
          yield job;
          if (isFinished(job)) return;
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof ApiError && !error.retryable) throw error;
        if (failures > 0) {
          const job = await this.jobIfReached(id, options);
          if (job !== null) yield job;
          if (job !== null && isFinished(job)) return;
        }
      }
      failures += 1;
      await pause(Math.min(15_000, 250 * 2 ** failures), options.signal);
    }
  }

  /** Return a job, or null where the API cannot be reached now. */
  private async jobIfReached(id: string, options: CallOptions): Promise<Job | null> {
    try {
      return await this.job(id, options);
    } catch (error) {
      if (error instanceof ApiError && error.retryable) return null;
      throw error;
    }
  }

  /** Wait until a job has ended; return it, whatever its end is. */
  async wait(id: string, options: CallOptions & { readonly onUpdate?: (job: Job) => void } = {}): Promise<Job> {
    const { onUpdate, ...rest } = options;
    for await (const job of this.events(id, rest)) {
      onUpdate?.(job);
      if (isFinished(job)) return job;
    }
    return this.job(id, rest);
  }

  /** Return all files of a completed job, by their numbers. */
  async files(id: string, options: CallOptions = {}): Promise<JobFile[]> {
    const found: JobFile[] = [];
    let cursor: string | null = null;
    do {
      const query = new URLSearchParams({ limit: "1000", ...(cursor === null ? {} : { cursor }) });
      const page: Schemas["FilePage"] = await this.http.json<Schemas["FilePage"]>({
        method: "GET",
        path: `${jobPath(id)}/files?${query}`,
        repeatable: true,
        ...options,
      });
      found.push(...page.files);
      cursor = page.next_cursor;
    } while (cursor !== null);
    return found;
  }

  /** Return a fresh link to a file, by its number; it can be opened without the token for some minutes. */
  async link(id: string, number: number, options: CallOptions = {}): Promise<string> {
    const path = `${jobPath(id)}/files/${number}`;
    return (await this.http.json<Schemas["DownloadLink"]>({ method: "GET", path, repeatable: true, ...options })).url;
  }

  /**
   * Download all files of a completed job into a folder, verify their SHA-256, and return their paths.
   *
   * A download that was interrupted is continued. A file of the same name with other content stays, and the
   * new one gets a number: `ledger (2).csv`. Throws {@link JobEndedError} if the job has no files.
   */
  async download(
    id: string,
    folder: string,
    options: CallOptions & { readonly onProgress?: Progress } = {},
  ): Promise<string[]> {
    const { onProgress, ...rest } = options;
    const job = await this.job(id, rest);
    if (isFinished(job) && job.status !== "completed") throw new JobEndedError(job);
    const paths: string[] = [];
    for (const file of await this.files(id, rest)) {
      const link = (): Promise<string> => this.link(id, file.number, rest);
      paths.push(await saveFile(file, folder, { link, fetch: this.http.fetch, onProgress, ...rest }));
    }
    return paths;
  }

  /** Cancel an unfinished job. If the job is completed, remove its files. */
  async cancel(id: string, options: CallOptions = {}): Promise<void> {
    const response = await this.http.send({ method: "DELETE", path: jobPath(id), repeatable: true, ...options });
    await response.body?.cancel();
  }

  /** Run a job again: a new job with the same request; return its id. */
  async rerun(id: string, options: RequestOptions = {}): Promise<Accepted> {
    const { idempotencyKey = randomUUID(), ...rest } = options;
    const headers = { "idempotency-key": idempotencyKey };
    return this.http.json<Accepted>({ method: "POST", path: `${jobPath(id)}:rerun`, headers, repeatable: true, ...rest });
  }

  /** Return the datasets that the user can see, with their columns and formats. */
  async datasets(options: CallOptions = {}): Promise<Catalogue> {
    return this.http.json<Catalogue>({ method: "GET", path: "/exports/datasets", repeatable: true, ...options });
  }
}

function order(request: ExportRequest, options: RequestOptions, waitSeconds: number) {
  const headers: Record<string, string> = { "idempotency-key": options.idempotencyKey ?? randomUUID() };
  if (waitSeconds > 0) headers["prefer"] = `wait=${waitSeconds}`;
  return {
    method: "POST",
    path: "/exports/jobs",
    body: request,
    headers,
    repeatable: true, // the key makes it the same job
    waitMs: waitSeconds * 1000,
    signal: options.signal,
  };
}

function jobPath(id: string): string {
  return `/exports/jobs/${encodeURIComponent(id)}`;
}
