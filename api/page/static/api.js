// Calls of the API, with the token of this tab.

import { t } from "./messages.js";

const BASE = new URL("..", import.meta.url);
const KEY = "exports.token";

/** A failed call; `message` is for people. */
export class Failure extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? t("page.problems.status", { status: String(status) }));
    this.status = status;
    this.field = problem.field;
  }
}

export const session = {
  get token() {
    return sessionStorage.getItem(KEY);
  },
  set token(value) {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  },
};

/** Called when a token is no longer accepted. */
export const lost = { handler: () => {} };

/** The user in a token, only for display: the service decides what is allowed. */
export function bearer(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (letter) => letter.codePointAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    const given = claims.roles ?? [];
    const roles = new Set(typeof given === "string" ? given.split(" ") : given);
    const admin = roles.has("exports:admin");
    return { id: String(claims.sub), ends: claims.exp * 1000, admin, all: admin || roles.has("exports:all") };
  } catch {
    return null;
  }
}

async function send(method, path, { body, headers, signal, token = session.token } = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), {
      method,
      signal,
      cache: "no-store",
      headers: {
        Authorization: `Bearer ${token}`,
        Accept: "application/json",
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, { detail: t("page.problems.unreachable") });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const failure = new Failure(answer.status, problem);
  if (answer.status === 401 && token === session.token) lost.handler(failure);
  throw failure;
}

/** The JSON of a response, or null if there is none. */
export async function call(method, path, options) {
  const answer = await send(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

/** Server-sent events as {id, type, data}, until the connection ends. `opened` is called when it starts. */
export async function* events(path, { last, opened, signal }) {
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  const answer = await send("GET", path, { headers, signal });
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { data: [] };
  for (;;) {
    const { value, done } = await reader.read();
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
}
