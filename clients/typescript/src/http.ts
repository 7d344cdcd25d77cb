import { noteCall, notTheApi, refusal, unreachable } from "./answers.js";
import { ApiError } from "./errors.js";
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

/** A call is not made again by itself where the API wants a longer pause. */
const LONGEST_PAUSE_MS = 30_000;

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
    let lost = false;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.once(call);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        noteCall(error, call.headers, lost);
        lost = error.inDoubt;
        const wait = pauseAfter(error, 250 * 2 ** attempt);
        if (!error.retryable || !call.repeatable || attempt >= TRIES || wait > LONGEST_PAUSE_MS) throw error;
        await pause(wait, call.signal);
      }
    }
  }

  /** Return the JSON of a call that succeeded. */
  async json<T>(call: Call): Promise<T> {
    return this.read<T>(await this.send(call), call);
  }

  /** Return the JSON of an answer. Throws {@link ApiError} if it has none: the server is not this API. */
  read<T>({ status, text }: Answer, call: Call): T {
    try {
      return JSON.parse(text) as T;
    } catch (cause) {
      const error = notTheApi(this.base, status, cause);
      noteCall(error, call.headers, false);
      throw error;
    }
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
    let sent = false;
    const act = async (): Promise<T> => {
      const headers = new Headers({
        authorization: `Bearer ${typeof token === "function" ? await token() : token}`,
        accept: "application/json",
        ...(call.body === undefined ? {} : { "content-type": "application/json" }),
        ...call.headers,
      });
      const body = call.body === undefined ? {} : { body: JSON.stringify(call.body) };
      sent = true;
      const response = await this.fetch(this.base + call.path, {
        method: call.method,
        redirect: "manual",
        signal: limit.signal,
        headers,
        ...body,
      });
      if (response.ok) return read(response);
      throw await refusal(this.base, response, call.method);
    };
    return this.reached(call, act, () => sent);
  }

  /** Return what `act` returns. What fails on the way is an {@link ApiError}, or the reason of the caller's signal. */
  private async reached<T>(call: Call, act: () => Promise<T>, isSent = (): boolean => true): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (call.signal?.aborted) throw call.signal.reason;
      if (error instanceof ApiError) throw error;
      throw unreachable(this.base, call.method, error, isSent());
    }
  }
}

/** Return the pause after a failure in milliseconds: the usual one, or the longer one that the API wants. */
export function pauseAfter(error: unknown, usualMs: number): number {
  return Math.max(usualMs, error instanceof ApiError ? (error.retryAfter ?? 0) * 1000 : 0);
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
