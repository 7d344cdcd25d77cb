import { randomUUID } from "node:crypto";
import { noteCall } from "./answers.js";
import { saveFile, type Progress } from "./download.js";
import { ApiError, JobEndedError } from "./errors.js";
import { parseEventStream } from "./event_stream.js";
import { Following } from "./following.js";
import { Http, pause, pauseAfter, type ClientOptions } from "./http.js";
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
/** How many rows and bytes an export would have. */
export type Estimate = Schemas["Estimate"];
/** Rows, bytes, digests, columns and filters of the files of a job. */
export type Manifest = Schemas["Manifest"];
/** A place that finished files can be sent to. */
export type Destination = Schemas["DestinationView"];
/** A mail, chat message, webhook call or transfer of a job. */
export type Delivery = Schemas["DeliveryView"];

/** Options of every call. */
export interface CallOptions {
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/** Which jobs to list. */
export interface JobsOptions extends CallOptions {
  /** Only jobs with this status. */
  readonly status?: Job["status"];
  /** Only jobs of this dataset or bundle. */
  readonly exportType?: string;
}

/** Options of a request. */
export interface RequestOptions extends CallOptions {
  /**
   * The same key and request again are the same job. Default: a new key, under which the call is repeated. An
   * {@link ApiError} has it as `idempotencyKey`: with it the call can be made again after a lost answer.
   */
  readonly idempotencyKey?: string;
}

/** Options of a call that follows a job. */
export interface FollowOptions extends CallOptions {
  /** Is called with the job at once and after each change. */
  readonly onUpdate?: (job: Job) => void;
}

/** Options of any other call. */
export interface AnyCallOptions extends CallOptions {
  /** For calls that take one: the same key and body again have one effect. */
  readonly idempotencyKey?: string;
}

const MAX_WAIT_SECONDS = 30;

/** The longest pause that an answer with `Retry-After` makes while a job is followed. */
const MAX_ASKED_MS = 60_000;

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
    options: RequestOptions & FollowOptions = {},
  ): Promise<Job> {
    const call = order(request, options, MAX_WAIT_SECONDS);
    const answer = await this.http.send(call);
    const job = this.http.read<Job | Accepted>(answer, call);
    if (answer.status === 200) return job as Job;
    try {
      return await this.end(job.export_job_id, options, new Following(true));
    } catch (error) {
      if (error instanceof ApiError) noteCall(error, call.headers, false);
      throw error;
    }
  }

  /** Return a job. */
  async job(id: string, options: CallOptions = {}): Promise<Job> {
    return this.read<Job>(jobPath(id), options);
  }

  /**
   * Yield the job at once and after each change; the job that has ended comes last.
   *
   * The stream is opened again where it breaks. While it cannot be opened, the job is read now and then. After the
   * API has shown the job, a proxy can answer in its place for up to 15 s.
   */
  events(id: string, options: CallOptions = {}): AsyncGenerator<Job, void, void> {
    return this.follow(id, options, new Following(false));
  }

  private async *follow(id: string, options: CallOptions, following: Following): AsyncGenerator<Job, void, void> {
    let last = "";
    let failures = 0;
    for (;;) {
      let failure: unknown;
      options.signal?.throwIfAborted();
      try {
        const stream = await this.http.stream({
          method: "GET",
          path: `${jobPath(id)}/events`,
          headers: { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) },
          repeatable: false,
          ...options,
        });
        if (stream === null) return; // the job has ended, and its last event is known
        for await (const event of parseEventStream(stream)) {
          if (event.event !== "job") continue;
          failures = 0;
          last = event.id;
          const job = JSON.parse(event.data) as Job;
          following.noteJob();
          yield job;
          if (isFinished(job)) return;
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof ApiError && !following.canPass(error)) throw error;
        failure = error;
        if (failures > 0) {
          const job = await this.jobIfReached(id, options, following);
          if (job !== null) yield job;
          if (job !== null && isFinished(job)) return;
        }
      }
      failures += 1;
      await pause(Math.min(MAX_ASKED_MS, pauseAfter(failure, Math.min(15_000, 250 * 2 ** failures))), options.signal);
    }
  }

  /** Return a job, or null where the API cannot be reached now. */
  private async jobIfReached(id: string, options: CallOptions, following: Following): Promise<Job | null> {
    try {
      const job = await this.job(id, options);
      following.noteJob();
      return job;
    } catch (error) {
      if (error instanceof ApiError && following.canPass(error)) return null;
      throw error;
    }
  }

  /** Wait until a job has ended; return it, whatever its end is. */
  async wait(id: string, options: FollowOptions = {}): Promise<Job> {
    return this.end(id, options, new Following(false));
  }

  private async end(id: string, options: FollowOptions, following: Following): Promise<Job> {
    const { onUpdate, ...rest } = options;
    for await (const job of this.follow(id, rest, following)) {
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
      const page: Schemas["FilePage"] = await this.read<Schemas["FilePage"]>(`${jobPath(id)}/files?${query}`, options);
      found.push(...page.files);
      cursor = page.next_cursor;
    } while (cursor !== null);
    return found;
  }

  /** Return a fresh link to a file, by its number; it can be opened without the token for some minutes. */
  async link(id: string, number: number, options: CallOptions = {}): Promise<string> {
    return (await this.read<Schemas["DownloadLink"]>(`${jobPath(id)}/files/${number}`, options)).url;
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
    await this.http.send({ method: "DELETE", path: jobPath(id), repeatable: true, ...options });
  }

  /** Run a job again: a new job with the same request; return its id. */
  async rerun(id: string, options: RequestOptions = {}): Promise<Accepted> {
    const { idempotencyKey = randomUUID(), ...rest } = options;
    const headers = { "idempotency-key": idempotencyKey };
    return this.http.json<Accepted>({ method: "POST", path: `${jobPath(id)}:rerun`, headers, repeatable: true, ...rest });
  }

  /** Return the datasets that the user can see, with their columns and formats. */
  async datasets(options: CallOptions = {}): Promise<Catalogue> {
    return this.read<Catalogue>("/exports/datasets", options);
  }

  /** Yield the jobs of the user, newest first. They are read in pages, as the caller asks for more. */
  async *jobs(options: JobsOptions = {}): AsyncGenerator<Job, void, void> {
    const { status, exportType, ...rest } = options;
    let cursor: string | null = null;
    do {
      const query = new URLSearchParams({
        limit: "100",
        ...(status === undefined ? {} : { status }),
        ...(exportType === undefined ? {} : { export_type: exportType }),
        ...(cursor === null ? {} : { cursor }),
      });
      const page: Schemas["JobPage"] = await this.read<Schemas["JobPage"]>(`/exports/jobs?${query}`, rest);
      yield* page.jobs;
      cursor = page.next_cursor;
    } while (cursor !== null);
  }

  /** Return how many rows and bytes an export would have, and whether its format can hold them. */
  async estimate(request: ExportRequest, options: CallOptions = {}): Promise<Estimate> {
    const path = "/exports/jobs:estimate";
    return this.http.json<Estimate>({ method: "POST", path, body: request, repeatable: true, ...options });
  }

  /** Return what the files of a completed job hold: rows, bytes, digests, columns, filters, moment of the data. */
  async manifest(id: string, options: CallOptions = {}): Promise<Manifest> {
    return this.read<Manifest>(`${jobPath(id)}/manifest`, options);
  }

  /** Return the password of the zip archives of a job. The API shows it once: keep it. */
  async password(id: string, options: CallOptions = {}): Promise<string> {
    const call = { method: "POST", path: `${jobPath(id)}:password`, repeatable: false, ...options };
    return (await this.http.json<Schemas["FilePassword"]>(call)).password;
  }

  /** Return the destinations that the user can send files to. */
  async destinations(options: CallOptions = {}): Promise<Destination[]> {
    return (await this.read<Schemas["Destinations"]>("/exports/destinations", options)).destinations;
  }

  /** Return the mails, chat messages, webhook calls and transfers of a job. */
  async deliveries(id: string, options: CallOptions = {}): Promise<Delivery[]> {
    return (await this.read<Schemas["Deliveries"]>(`${jobPath(id)}/deliveries`, options)).deliveries;
  }

  /**
   * Make any other call of the API, such as those of schedules; return its JSON, or null if the answer has none.
   *
   * It is made once: the client cannot know whether it can be repeated.
   */
  async call<T>(method: string, path: string, body?: unknown, options: AnyCallOptions = {}): Promise<T | null> {
    const { idempotencyKey, ...rest } = options;
    const headers: Record<string, string> = idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey };
    const call = { method, path, body, headers, repeatable: false, ...rest };
    const answer = await this.http.send(call);
    return answer.text === "" ? null : this.http.read<T>(answer, call);
  }

  private async read<T>(path: string, options: CallOptions): Promise<T> {
    return this.http.json<T>({ method: "GET", path, repeatable: true, ...options });
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
