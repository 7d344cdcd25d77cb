// Numbers, times and states as texts for people.

import { has, locale, t } from "./messages.js";
import { now } from "./session.js";

export const DATE = { day: "numeric", month: "short", year: "numeric" };
const SIZES = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
const whole = new Intl.NumberFormat(locale);
const day = new Intl.DateTimeFormat(locale, DATE);
const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });

export const count = (number) => whole.format(number);
export const rows = (number) => t("page.numbers.rows", { count: number });

const fixed = (number, digits, style = {}) => new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits, ...style }).format(number);

export function size(bytes) {
  let power = 0;
  while (bytes >= 999.5 && power < SIZES.length - 1) {
    bytes /= 1000;
    power += 1;
  }
  return fixed(bytes, power && bytes < 9.95 ? 1 : 0, { style: "unit", unit: SIZES[power], unitDisplay: power ? "short" : "long" });
}

export function duration(seconds) {
  if (seconds < 100) return t("page.numbers.seconds", { number: fixed(seconds, seconds < 10 ? 1 : 0) });
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? t("page.numbers.minutes", { number: minutes }) : t("page.numbers.hours", { number: Math.round(minutes / 60) });
}

export function moment(text) {
  const date = new Date(text);
  const time = clock.format(date);
  return isToday(date) ? t("page.numbers.today", { time }) : t("page.numbers.moment", { date: day.format(date), time });
}

/** Whether this browser knows the time zone: the service has other ones. */
export const isZone = (timeZone) => {
  try {
    return Boolean(new Intl.DateTimeFormat("en", { timeZone }));
  } catch {
    return false;
  }
};

/** A time in the time zone of the schedule, or in UTC, with its name, if this browser does not know the zone. */
export function runTime(text, zone) {
  const timeZone = isZone(zone) ? zone : "UTC";
  const parts = { hour: "2-digit", minute: "2-digit", weekday: "short", day: "numeric", month: "short" };
  const shown = new Intl.DateTimeFormat(locale, { ...parts, timeZone }).format(new Date(text));
  return timeZone === zone ? shown : t("page.shown_filters.in_zone", { text: shown, zone: timeZone });
}

/** A time that tells exports apart which were requested in the same minute. */
export const exactTime = (text) => new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(text));

export const clockTime = (time) => clock.format(new Date(time));

export const date = (text) => day.format(new Date(text));

/** The day that it is, as a text to compare. */
export const today = () => new Date(now()).toDateString();

const isToday = (moment) => moment.toDateString() === today();

/** The text of a message whose name the service gives, or else the name. */
const named = (group, name) => (has(`${group}.${name}`) ? t(`${group}.${name}`) : name);

export const status = (name) => named("page.status", name);

export const TIMES = new Set(["date", "time", "timestamp", "timestamptz"]);

/** An operator, or a condition of two operators, in words. */
export function operator(name, kind) {
  return TIMES.has(kind) && has(`page.time_operators.${name}`) ? t(`page.time_operators.${name}`) : named("page.operators", name);
}

const FORMATS = { csv: "CSV", json: "JSON", ndjson: "NDJSON", excel: "Excel", pdf: "PDF", parquet: "Parquet" };
export const formatName = (name) => FORMATS[name] ?? name;

/** A message with a capital first letter. The name of a field at its beginning, such as `filters.order no: …`, stays as it is. */
export const sentence = (text) => (text && !/^\S+(: |\.\S)/.test(text) ? text[0].toUpperCase() + text.slice(1) : text);

/** Whose rows an export has, unless they are the user's own. */
export const scopeText = (scope) => (scope === "all" ? t("page.scopes.all") : (scope ?? "own") === "own" ? null : t("page.scopes.named", { scope }));

/** What a finished file has instead of some values, in sentences. */
export const warnings = (found) =>
  Object.entries(found ?? {}).map(([name, count]) => (has(`warnings.${name}`) ? t(`warnings.${name}`, { count }) : t("warnings.other", { name: name.replaceAll("_", " "), count })));
