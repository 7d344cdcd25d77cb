// Whether the service answers. While it does not, a notice says so, and messages about it vanish when it answers again.

import { t } from "./messages.js";

const SLOW = 5000; // milliseconds after which the page says that it waits
const PROBE = 2000; // milliseconds between the first questions whether the service is back, and for their answers
const SELDOM = 10_000; // between questions when it is away for long
const HEALTH = new URL("../healthz", import.meta.url);

const notice = document.getElementById("connection");
const waiting = new Set();
const recoveryListeners = new Set();
const outageListeners = new Set();
const messagesToClear = new Map();
let away = false;

/** Call `listener` each time the service answers again. */
export const onRecovery = (listener) => recoveryListeners.add(listener);

/** Call `listener` each time the service begins not to answer. */
export const onOutage = (listener) => outageListeners.add(listener);

export const isAway = () => away;

/** Note that a call begins; the result is called with whether there was an answer, or with null if it was given up. */
export function trackCall() {
  const call = { slow: false };
  const timer = setTimeout(() => {
    call.slow = true;
    show();
  }, SLOW);
  waiting.add(call);
  return (answered) => {
    clearTimeout(timer);
    waiting.delete(call);
    if (answered === true) noteRecovery();
    if (answered === false) noteOutage();
    show();
  };
}

/** Note that the service does not answer. */
export function noteOutage() {
  if (away) return;
  away = true;
  show();
  scheduleProbe(PROBE);
  for (const listener of outageListeners) listener();
}

/** Ask whether the service is back; not at the same moment as all other pages. */
function scheduleProbe(wait) {
  setTimeout(() => probe(Math.min(wait * 1.2, SELDOM)), wait * (0.5 + Math.random() / 2));
}

async function probe(next) {
  if (!away) return;
  const { ok } = await fetch(HEALTH, { cache: "no-store", signal: AbortSignal.timeout(PROBE) }).catch(() => ({ ok: false }));
  if (ok) noteRecovery();
  else scheduleProbe(next);
}

/** The message `text` in `place` is about the connection: it vanishes when the service answers again. */
export const clearOnRecovery = (place, text) => messagesToClear.set(place, text);

function noteRecovery() {
  for (const [place, text] of messagesToClear) if (place.textContent === text) [place.textContent, place.hidden] = ["", place.getAttribute("role") === "alert"];
  messagesToClear.clear();
  if (!away) return;
  away = false;
  show();
  for (const listener of recoveryListeners) listener();
}

function show() {
  const slow = [...waiting].some((call) => call.slow);
  const text = away ? t("page.connection.away") : slow ? t("page.connection.slow") : "";
  if (notice.textContent !== text) notice.textContent = text;
  notice.hidden = !text;
}
