import { ApiError, type Problem } from "./errors.js";

/** Where the API is, and who calls it. */
export interface ClientOptions {
  /** The bearer token, or a function that returns a fresh one for each call. */
  readonly token: string | (() => string | Promise<string>);
  /** Replaces the global `fetch`, for proxies and tests. */
  readonly fetch?: typeof globalThis.fetch;
  /** The longest time of one call in milliseconds, without streams. Default: 30,000. */
  readonly timeoutMs?: number;
}

/** One call of the API. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal | undefined;
  /** Whether the same call can be made again after a failure. */
  readonly repeatable: boolean;
  /** Milliseconds that the API may wait before it answers. `Infinity`: the answer is a stream. */
  readonly waitMs?: number;
}

const TRIES = 3;

/** Makes calls with the token; a repeatable one again when the network or the service fails. */
export class Http {
  private readonly base: string;

  constructor(
    url: string,
    private readonly options: ClientOptions,
  ) {
    this.base = url.replace(/\/+$/, "");
  }

  /** `fetch` without the token, for links of the object store. */
  get fetch(): typeof globalThis.fetch {
    return this.options.fetch ?? globalThis.fetch;
  }

  /** Return the response of a call that succeeded. Throws {@link ApiError} for any other. */
  async send(call: Call): Promise<Response> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.once(call);
      } catch (error) {
        if (!(error instanceof ApiError && error.retryable && call.repeatable) || attempt >= TRIES) throw error;
        await pause(250 * 2 ** attempt, call.signal);
      }
    }
  }

  /** Return the JSON of a call that succeeded. */
  async json<T>(call: Call): Promise<T> {
    const response = await this.send(call);
    return (await response.json()) as T;
  }

  private async once(call: Call): Promise<Response> {
    const { token, timeoutMs = 30_000 } = this.options;
    const limit = timeoutMs + (call.waitMs ?? 0);
    const signals = call.signal ? [call.signal] : [];
    const timer = new AbortController();
    const timeout = Number.isFinite(limit) ? setTimeout(() => timer.abort(new Error("no answer in time")), limit) : undefined;
    const stop = (): void => timer.abort(call.signal?.reason);
    for (const signal of signals) signal.aborted ? stop() : signal.addEventListener("abort", stop, { once: true });
    let response: Response;
    try {
      response = await this.fetch(this.base + call.path, {
        method: call.method,
        redirect: "manual",
        signal: timer.signal,
        headers: {
          authorization: `Bearer ${typeof token === "function" ? await token() : token}`,
          accept: "application/json",
          ...(call.body === undefined ? {} : { "content-type": "application/json" }),
          ...call.headers,
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      });
      if (response.ok) return response;
      throw await refusal(response);
    } catch (error) {
      if (call.signal?.aborted) throw call.signal.reason;
      if (error instanceof ApiError) throw error;
      throw new ApiError(`the API at ${this.base} cannot be reached`, 0, "", null, { cause: error });
    } finally {
      clearTimeout(timeout);
    }
  }
}

/** Return the error of a response that is not a success. */
async function refusal(response: Response): Promise<ApiError> {
  const type = response.headers.get("content-type") ?? "";
  const text = await response.text();
  if (type.startsWith("application/problem+json")) {
    const problem = JSON.parse(text) as Problem;
    return new ApiError(problem.detail, response.status, problem.code, problem);
  }
  return new ApiError(`the server answered ${response.status}`, response.status);
}

/** Wait; throws the reason of `signal` when it is aborted. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
