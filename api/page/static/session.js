// The session of this tab: its tokens, which end with the tab, and the time at which it ends.

const TOKEN = "exports.token";
const OTHER_TOKENS = "exports.session"; // what a provider gave besides the access token
const WARNING = 5 * 60_000; // milliseconds before the end of the session
const RENEWAL_LEAD = 60_000; // a renewal begins this long before the warning
const RETRY_PAUSE = 10_000; // milliseconds between attempts to renew
const CHECK_INTERVAL = 1000;
const DATE_PRECISION = 3000; // milliseconds: `date` has whole seconds

let ahead = 0; // milliseconds by which the browser's clock is ahead of the service

/** The time of the service in milliseconds. Its times are compared with it: the browser's clock can be wrong. */
export const now = () => Date.now() - ahead;

/** Compare the clocks. `date` is that of an answer to a call at `asked`. */
export function compareClocks(date, asked) {
  const time = Date.parse(date);
  const behind = Date.now() - time;
  ahead = asked - time > DATE_PRECISION ? asked - time : behind < -DATE_PRECISION ? behind : 0;
}

export const session = {
  generation: 0, // the number of ended sessions; a call of an earlier session has no answer

  get token() {
    return sessionStorage.getItem(TOKEN);
  },

  /** The refresh token and the ID token, or null for a pasted token. */
  get otherTokens() {
    return JSON.parse(sessionStorage.getItem(OTHER_TOKENS));
  },

  store({ access, ...rest }) {
    sessionStorage.setItem(TOKEN, access);
    if (Object.keys(rest).length) sessionStorage.setItem(OTHER_TOKENS, JSON.stringify(rest));
    else sessionStorage.removeItem(OTHER_TOKENS);
  },

  clear() {
    this.generation += 1;
    sessionStorage.removeItem(TOKEN);
    sessionStorage.removeItem(OTHER_TOKENS);
  },
};

/** Renews the session before its end, or else warns and then ends it. It looks at the time, because computers sleep. */
export class SessionClock {
  /** `renew()` returns the new end in milliseconds, 0 if the session cannot be renewed; it throws if trying again can help. */
  constructor({ renew, warn, end }) {
    Object.assign(this, { renew, warn, end });
    this.busy = null;
  }

  /** `ends` is in milliseconds; `renewable` is whether there is a refresh token. */
  start(ends, renewable) {
    const left = ends - now();
    this.ends = ends;
    this.renewable = renewable;
    this.next = Math.max(now() + RETRY_PAUSE, ends - Math.min(WARNING + RENEWAL_LEAD, left / 4));
    this.failed = false;
    clearInterval(this.timer);
    this.timer = setInterval(() => this.check(), CHECK_INTERVAL);
    this.check();
  }

  stop() {
    clearInterval(this.timer);
    this.ends = Infinity;
  }

  check() {
    const left = this.ends - now();
    if (this.renewable) {
      if (now() >= this.next) this.attempt();
    } else if (left <= 0) this.end();
    if (left <= WARNING && left > 0 && (!this.renewable || this.failed)) this.warn(this.ends);
  }

  /** Renew the session now. Return whether it goes on. */
  attempt() {
    this.busy ??= this.renewOnce().finally(() => (this.busy = null));
    return this.busy;
  }

  async renewOnce() {
    this.next = now() + RETRY_PAUSE;
    try {
      const ends = await this.renew();
      if (ends) this.start(ends, true);
      else this.renewable = false;
      return Boolean(ends);
    } catch {
      this.failed = true;
      if (now() >= this.ends) this.renewable = false;
      return false;
    }
  }
}

export const PAGE = new URL("..", import.meta.url).href; // where the provider sends the browser back to

/** The parameters with which the provider sent the browser back, or null. They leave the address at once. */
export function returned() {
  const query = new URLSearchParams(location.search);
  if (!query.has("state") || !(query.has("code") || query.has("error"))) return null;
  history.replaceState(null, "", PAGE + location.hash);
  return query;
}

/** The claims of a JWT, unverified, or null if it is none. The API verifies the tokens that it gets. */
export function payload(token) {
  try {
    const [, part] = token.split(".");
    const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.codePointAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === "object" ? claims : null;
  } catch {
    return null;
  }
}
