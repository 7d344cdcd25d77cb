// Calls of the API, with the token of this tab.

import { noteOutage, trackCall } from "./connection.js";
import { problemText, t } from "./messages.js";
import { compareClocks, session } from "./session.js";

const BASE = new URL("..", import.meta.url);
const TIMEOUT = 20_000; // milliseconds for an answer
const PAUSES = [1000, 3000]; // milliseconds before each further attempt of a call that can be repeated
const SILENCE = 12_000; // milliseconds without an event; the service sends some every 5 s
const GATEWAY = new Set([404, 502, 503, 504]); // of proxies. Those of the service have a code
const WITHOUT_EFFECT = new Set([408, 425, 429]); // the service did not read the request: an earlier attempt can have been done
const TOO_SLOW = "search_too_slow"; // would be as slow again
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g; // texts and numbers of JSON

/** A failed call; `message` is for people. `away`: there was no answer, so trying again can help. */
export class Failure extends Error {
  constructor(status, problem, away = false) {
    const message = problem.detail ?? problem.title ?? t("page.problems.status", { status: String(status) });
    super(problemText({ code: problem.code, field: problem.field, message }));
    this.status = status;
    this.code = problem.code;
    this.field = problem.field;
    this.away = away;
  }

  /** Whether the same call can have another answer later, without a change by the user. */
  get passes() {
    return this.away || WITHOUT_EFFECT.has(this.status) || (this.status >= 500 && this.code !== TOO_SLOW);
  }
}

/** `handler` is called when a token is no longer accepted. It returns whether the session goes on with a new one. */
export const lost = { handler: async () => false };

/** A key with which a repeated request is the same request. It needs no secure context, unlike crypto.randomUUID. */
export const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The user of a token, as the service reads it. */
export async function userOf(token) {
  const { user_id: id, roles: given, expires_at: ends } = await call("GET", "exports/me", { token, timed: true });
  const roles = new Set(given);
  const admin = roles.has("exports:admin");
  const operator = admin || roles.has("exports:operate");
  return { id, ends: ends ? Date.parse(ends) : Infinity, roles, admin, operator, all: admin || roles.has("exports:all") };
}

/** Send a call, again if it changes nothing or has an idempotency key. `read` reads the answer within the time limit. */
async function send(method, path, { attempts = PAUSES.length + 1, read, ...options } = {}) {
  const most = method === "GET" || options.headers?.["idempotency-key"] ? attempts : 1;
  const own = !("token" in options); // of this session: it has no answer when the session has ended
  const { generation } = session;
  const over = () => own && (generation !== session.generation || !session.token);
  let renewed = false;
  for (let attempt = 1; !over(); ) {
    const { token } = session;
    try {
      const answer = await once(method, path, read, { token, ...options });
      if (!over()) return answer;
    } catch (failure) {
      if (over()) break;
      if (own && failure.status === 401 && !renewed && (token !== session.token || (await lost.handler()))) {
        renewed = true; // the service has done nothing
        continue;
      }
      if (over()) break;
      if (!failure.away || attempt >= most) throw failure;
      await new Promise((resolve) => setTimeout(resolve, PAUSES[attempt - 1]));
      attempt += 1;
      options.signal?.throwIfAborted();
    }
  }
  throw new DOMException("", "AbortError");
}

async function once(method, path, read, { body, headers, signal, token, timeout = TIMEOUT }) {
  signal?.throwIfAborted();
  const limit = new AbortController();
  const stop = () => limit.abort();
  const timer = setTimeout(stop, timeout);
  signal?.addEventListener("abort", stop);
  const done = trackCall();
  let answer;
  let problem;
  try {
    answer = await fetch(new URL(path, BASE), {
      method,
      signal: limit.signal,
      cache: "no-store",
      headers: {
        ...(token && { Authorization: `Bearer ${token}` }),
        Accept: "application/json",
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
    });
    if (answer.ok) {
      const content = read ? await read(answer) : answer;
      done(true);
      return content;
    }
    problem = await answer.json().catch(() => null);
  } catch (error) {
    done(signal?.aborted ? null : false);
    if (signal?.aborted) throw error;
    throw new Failure(0, { detail: limit.signal.aborted ? t("page.problems.timed_out") : t("page.problems.unreachable") }, true);
  } finally {
    clearTimeout(timer);
    if (read || !answer?.ok) signal?.removeEventListener("abort", stop); // a stream goes on
  }
  const away = GATEWAY.has(answer.status) && !problem?.code; // a proxy answered, and not the service
  const isBlocked = away && answer.status === 404 && !read; // a proxy can refuse streams alone
  done(isBlocked ? null : !away);
  if (away) throw new Failure(0, { detail: t("page.problems.unreachable") }, true);
  throw new Failure(answer.status, problem ?? {});
}

/** The value of a JSON text. A whole number that would be rounded is a text with `mark` before it. */
export function parse(text, mark = "") {
  return JSON.parse(text.replace(TOKENS, (token) => (/^-?\d{16,}$/.test(token) && !Number.isSafeInteger(+token) ? `"${mark}${token}"` : token)));
}

/** The JSON of a response, or null if there is none. `timed`: it tells the time of the service. */
export function call(method, path, { timed, ...options } = {}) {
  const asked = Date.now();
  const read = async (answer) => {
    if (timed) compareClocks(answer.headers.get("date"), asked);
    return answer.status === 204 ? null : parse(await answer.text());
  };
  return send(method, path, { ...options, read });
}

const keys = new Map(); // of requests whose answer is not known

/** Request something new without a body. Until it is answered, the next attempt is the same request. */
export async function post(path) {
  const key = keys.get(path) ?? unique();
  keys.set(path, key);
  try {
    const answer = await call("POST", path, { headers: { "idempotency-key": key } });
    keys.delete(path);
    return answer;
  } catch (failure) {
    if (failure.status >= 400 && failure.status < 500 && !WITHOUT_EFFECT.has(failure.status)) keys.delete(path);
    throw failure;
  }
}

/** Server-sent events as {id, type, data}, until the connection ends. `opened` is called when it starts. */
export async function* events(path, { last, opened, signal }) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  const own = new AbortController(); // of this stream: `signal` is that of many
  const stop = () => own.abort();
  signal.addEventListener("abort", stop);
  let reader;
  let rest = "";
  let event = { data: [] };
  try {
    const answer = await send("GET", path, { headers, signal: own.signal, attempts: 1 });
    opened();
    reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await heard(reader);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { id: event.id, data: [] };
          continue;
        }
        const [, name, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "data") event.data.push(content);
        else if (name === "event") event.type = content;
        else if (name === "id") event.id = content;
      }
    }
  } finally {
    signal.removeEventListener("abort", stop);
    reader?.cancel().catch(() => {});
  }
}

/** The next part of a stream. A stream that is silent for too long has ended. */
async function heard(reader) {
  let timer;
  const silent = new Promise((resolve) => {
    timer = setTimeout(() => resolve({ done: true, silent: true }), SILENCE);
  });
  const part = await Promise.race([reader.read(), silent]);
  clearTimeout(timer);
  if (part.silent) noteOutage();
  return part;
}
