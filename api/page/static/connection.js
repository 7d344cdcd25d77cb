// Whether the service answers. While it does not, a notice says so, and messages about it vanish when it answers again.

import { t } from "./messages.js";

const SLOW = 5000; // milliseconds after which the page says that it waits
const PROBE = 2000; // milliseconds between the first questions whether the service is back, and for their answers
const SELDOM = 10_000; // between questions when it is away for long
const HEALTH = new URL("../healthz", import.meta.url);

const notice = document.getElementById("connection");
const waiting = new Set();
const listeners = new Set();
const losses = new Set();
const places = new Map();
let away = false;

/** Call `listener` each time the service answers again. */
export const onReturn = (listener) => listeners.add(listener);

/** Call `listener` each time the service begins not to answer. */
export const onLoss = (listener) => losses.add(listener);

export const isAway = () => away;

/** Note that a call begins; the result is called with whether there was an answer, or with null if it was given up. */
export function begins() {
  const call = { slow: false };
  const timer = setTimeout(() => {
    call.slow = true;
    show();
  }, SLOW);
  waiting.add(call);
  return (answered) => {
    clearTimeout(timer);
    waiting.delete(call);
    if (answered === true) returns();
    if (answered === false) goes();
    show();
  };
}

/** Note that the service does not answer. */
export function goes() {
  if (away) return;
  away = true;
  show();
  later(PROBE);
  for (const listener of losses) listener();
}

/** Ask whether the service is back; not at the same moment as all other pages. */
function later(wait) {
  setTimeout(() => probe(Math.min(wait * 1.2, SELDOM)), wait * (0.5 + Math.random() / 2));
}

async function probe(next) {
  if (!away) return;
  const { ok } = await fetch(HEALTH, { cache: "no-store", signal: AbortSignal.timeout(PROBE) }).catch(() => ({ ok: false }));
  if (ok) returns();
  else later(next);
}

/** The message `text` in `place` is about the connection: it vanishes when the service answers again. */
export const passing = (place, text) => places.set(place, text);

function returns() {
  for (const [place, text] of places) if (place.textContent === text) [place.textContent, place.hidden] = ["", place.getAttribute("role") === "alert"];
  places.clear();
  if (!away) return;
  away = false;
  show();
  for (const listener of listeners) listener();
}

function show() {
  const slow = [...waiting].some((call) => call.slow);
  const text = away ? t("page.connection.away") : slow ? t("page.connection.slow") : "";
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}
