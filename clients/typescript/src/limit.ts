/** Ends a call: with the caller's signal, or when its time has passed. */
export class Limit {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly caller?: AbortSignal | undefined) {
    if (caller?.aborted) this.stop();
    else caller?.addEventListener("abort", this.stop, { once: true });
  }

  /** The signal for `fetch`. It ends the headers and the body of the answer. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** End the call after this many milliseconds from now on, in place of an earlier limit. `Infinity`: never. */
  allow(ms: number): void {
    clearTimeout(this.timer);
    if (Number.isFinite(ms)) this.timer = setTimeout(() => this.controller.abort(new Error("no answer in time")), ms);
  }

  /** End the call now, with what is still to come of its answer. */
  abort(): void {
    this.controller.abort();
  }

  /** Remove the timer and the listener. A caller can use one signal for many calls. */
  release(): void {
    clearTimeout(this.timer);
    this.caller?.removeEventListener("abort", this.stop);
  }

  private readonly stop = (): void => this.controller.abort(this.caller?.reason);
}
