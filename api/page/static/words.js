// Numbers, times and states as texts for people.

const whole = new Intl.NumberFormat("en");
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

export const count = (number) => whole.format(number);
export const rows = (number) => `${count(number)} ${number === 1 ? "row" : "rows"}`;

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (bytes >= 999.5 && power < units.length - 1) {
    bytes /= 1000;
    power += 1;
  }
  return `${power && bytes < 9.95 ? bytes.toFixed(1) : count(Math.round(bytes))} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

export function moment(text) {
  const date = new Date(text);
  return `${isToday(date) ? "today" : day.format(date)}, ${clock.format(date)}`;
}

/** A time in the time zone of the schedule. */
export function run(text, timeZone) {
  const parts = { hour: "2-digit", minute: "2-digit", weekday: "short", day: "numeric", month: "short" };
  return new Intl.DateTimeFormat("en-GB", { ...parts, timeZone }).format(new Date(text));
}

export const date = (text) => day.format(new Date(text));

const isToday = (moment) => moment.toDateString() === new Date().toDateString();

export const STATUS = {
  pending: "Waiting",
  processing: "Running",
  completed: "Ready",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

export const OPERATORS = {
  eq: "is",
  ne: "is not",
  lt: "below",
  lte: "at most",
  gt: "above",
  gte: "at least",
  in: "one of",
  not_in: "none of",
  prefix: "starts with",
  contains: "contains",
  is_null: "is empty",
  between: "between",
  period: "in the period",
};
const IN_TIME = { ...OPERATORS, lt: "before", lte: "until", gt: "after", gte: "from" };

export const TIMES = new Set(["date", "time", "timestamp", "timestamptz"]);
export const operator = (name, kind) => (TIMES.has(kind) ? IN_TIME : OPERATORS)[name] ?? name;

const FORMATS = { csv: "CSV", json: "JSON", ndjson: "NDJSON", excel: "Excel", pdf: "PDF", parquet: "Parquet" };
export const format = (name) => FORMATS[name] ?? name;

/** A message with a capital first letter. */
export const sentence = (text) => text && text[0].toUpperCase() + text.slice(1);

/** Periods relative to the day on which an export runs: their names and the filters that they stand for. */
export const PERIODS = [
  ["today", "today", "tomorrow"],
  ["yesterday", "yesterday", "today"],
  ["the last 7 days, with today", "today-6d", "tomorrow"],
  ["the last 30 days, with today", "today-29d", "tomorrow"],
  ["this week", "start_of_week", "start_of_week+1w"],
  ["last week", "start_of_week-1w", "start_of_week"],
  ["this month", "start_of_month", "start_of_month+1mo"],
  ["last month", "start_of_month-1mo", "start_of_month"],
  ["this quarter", "start_of_quarter", "start_of_quarter+3mo"],
  ["last quarter", "start_of_quarter-3mo", "start_of_quarter"],
  ["this year", "start_of_year", "start_of_year+1y"],
  ["last year", "start_of_year-1y", "start_of_year"],
].map(([name, gte, lt]) => ({ name, tests: { gte, lt } }));

/** The period that the tests of a column stand for, or undefined. */
export const periodOf = (tests) => PERIODS.find(({ tests: own }) => Object.keys(tests).length === 2 && own.gte === tests.gte && own.lt === tests.lt);

/** Whose rows an export has, unless they are the user's own. */
export const scopeText = (scope) => (scope === "all" ? "rows of all users" : (scope ?? "own") === "own" ? null : `rows of ${scope}`);

/** Filters of a job in one line; days are those of `zone`, if the job names one. */
export function filters(wanted, zone) {
  const found = Object.entries(wanted ?? {}).flatMap(([column, tests]) => (isTests(tests) ? ofColumn(column, tests) : test(column, "eq", tests)));
  const dated = zone && JSON.stringify(wanted ?? {}).match(/"\d{4}-\d\d-\d\d"/);
  return found.join(" · ") + (dated ? ` (${zone})` : "");
}

function ofColumn(column, tests) {
  const period = periodOf(tests);
  if (period) return [`${column}: ${period.name}`];
  const { gte, lte, ...others } = tests;
  if (isDay(gte) && isDay(lte)) return [`${column}: ${shownDay(gte)} to ${shownDay(lte)}`, ...Object.entries(others).map(([name, value]) => test(column, name, value))];
  return Object.entries(tests).map(([name, value]) => test(column, name, value));
}

export const isTests = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const DAY = /^(\d{4}-\d\d-\d\d)(?:\[([\w+/-]+)\])?$/;
const isDay = (value) => typeof value === "string" && DAY.test(value);
const DAYS = { eq: "on", ne: "not on", lt: "before", lte: "until", gt: "after", gte: "from" };

/** A day for people, with its zone if it names one. */
function shownDay(value) {
  const [, text, zone] = DAY.exec(value);
  const shown = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }).format(new Date(text));
  return shown + (zone ? ` (${zone})` : "");
}

function test(column, name, value) {
  if (name === "is_null") return `${column} ${value ? "is empty" : "is not empty"}`;
  if (isDay(value) && DAYS[name]) return `${column} ${DAYS[name]} ${shownDay(value)}${name === "lte" ? " (inclusive)" : ""}`;
  const sign = { eq: "=", ne: "≠", lt: "<", lte: "≤", gt: ">", gte: "≥" }[name] ?? OPERATORS[name] ?? name;
  const shown = Array.isArray(value) ? value.slice(0, 5).join(", ") + (value.length > 5 ? " …" : "") : value;
  return `${column} ${sign} ${shown === null ? "empty" : shown}`;
}
