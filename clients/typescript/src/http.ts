import { ApiError, type Problem } from "./errors.js";
import { Limit } from "./limit.js";

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
  /** Milliseconds that the API waits for a job before it answers. */
  readonly waitMs?: number;
}

/** The answer of a call. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

const TRIES = 3;

/** A stream that is silent for so long is broken: the API sends something every 5 s. */
const SILENCE_MS = 45_000;

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

  /** Return the answer of a call that succeeded, with its body. Throws {@link ApiError} for any other. */
  async send(call: Call): Promise<Answer> {
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
    const { text } = await this.send(call);
    return JSON.parse(text) as T;
  }

  /**
   * Return the parts of a stream, or null where the answer has no body.
   *
   * Reading them throws an {@link ApiError} when the stream is broken, or silent for `silenceMs`.
   */
  async stream(call: Call, silenceMs: number = SILENCE_MS): Promise<AsyncIterable<Uint8Array> | null> {
    const limit = new Limit(call.signal);
    try {
      limit.allow(silenceMs);
      const response = await this.within(call, limit, (found) => Promise.resolve(found));
      if (response.body !== null) return this.parts(call, limit, response.body[Symbol.asyncIterator](), silenceMs);
    } catch (error) {
      limit.release();
      throw error;
    }
    limit.release();
    return null;
  }

  private async *parts(
    call: Call,
    limit: Limit,
    body: AsyncIterator<Uint8Array>,
    silenceMs: number,
  ): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (;;) {
        limit.allow(silenceMs);
        const part = await this.reached(call, () => body.next());
        limit.allow(Infinity); // the time that the caller needs for a part does not count
        if (part.done) return;
        yield part.value;
      }
    } finally {
      limit.abort();
      limit.release();
      body.return?.().catch(() => undefined); // a `fetch` of the caller's own can ignore signals
    }
  }

  private async once(call: Call): Promise<Answer> {
    const limit = new Limit(call.signal);
    try {
      limit.allow((this.options.timeoutMs ?? 30_000) + (call.waitMs ?? 0));
      return await this.within(call, limit, async (found) => ({ status: found.status, text: await found.text() }));
    } finally {
      limit.release();
    }
  }

  /** Make the call, and read a successful answer. All of it ends with the limit. */
  private async within<T>(call: Call, limit: Limit, read: (response: Response) => Promise<T>): Promise<T> {
    const { token } = this.options;
    return this.reached(call, async () => {
      const response = await this.fetch(this.base + call.path, {
        method: call.method,
        redirect: "manual",
        signal: limit.signal,
        headers: {
          authorization: `Bearer ${typeof token === "function" ? await token() : token}`,
          accept: "application/json",
          ...(call.body === undefined ? {} : { "content-type": "application/json" }),
          ...call.headers,
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      });
      if (response.ok) return read(response);
      throw await refusal(response);
    });
  }

  /** Return what `act` returns. What fails on the way is an {@link ApiError}, or the reason of the caller's signal. */
  private async reached<T>(call: Call, act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (call.signal?.aborted) throw call.signal.reason;
      if (error instanceof ApiError) throw error;
      throw new ApiError(`the API at ${this.base} cannot be reached`, 0, "", null, { cause: error });
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
