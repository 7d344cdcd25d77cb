// Filters and windows of a request as texts for people.

import { columnOf, zoneOf } from "./labels.js";
import { has, locale, t } from "./messages.js";
import { DATE, isZone, operator } from "./words.js";

/** Periods relative to the day on which an export runs: their names and the filters that they stand for. */
export const PERIODS = [
  ["today", "today", "tomorrow"],
  ["yesterday", "yesterday", "today"],
  ["last_7_days", "today-6d", "tomorrow"],
  ["last_30_days", "today-29d", "tomorrow"],
  ["this_week", "start_of_week", "start_of_week+1w"],
  ["last_week", "start_of_week-1w", "start_of_week"],
  ["this_month", "start_of_month", "start_of_month+1mo"],
  ["last_month", "start_of_month-1mo", "start_of_month"],
  ["this_quarter", "start_of_quarter", "start_of_quarter+3mo"],
  ["last_quarter", "start_of_quarter-3mo", "start_of_quarter"],
  ["this_year", "start_of_year", "start_of_year+1y"],
  ["last_year", "start_of_year-1y", "start_of_year"],
].map(([name, gte, lt]) => ({ name: t(`page.periods.${name}`), tests: { gte, lt } }));

/** The period that the tests of a column stand for, or undefined. */
export const periodOf = (tests) => PERIODS.find(({ tests: own }) => Object.keys(tests).length === 2 && own.gte === tests.gte && own.lt === tests.lt);

/**
 * Filters of a request in one line, with the labels of the dataset's columns.
 *
 * Days are those of `zone`, if the request names one; times are shown in it, or in the zone of the dataset.
 * `at` is the time from which relative days count, so that "last month" says which one.
 */
export function filtersText(wanted, dataset, zone, at) {
  const shown = { zone: zone ?? zoneOf(dataset), dated: false };
  shown.today = at && localTime(at, { zone: shown.zone })?.time;
  const found = Object.entries(flattenFilters(wanted)).flatMap(([name, tests]) => columnTexts(columnOf(dataset, name), isTests(tests) ? tests : { eq: tests }, shown));
  const days = zone && /"\d{4}-\d\d-\d\d"/.test(JSON.stringify(wanted ?? {}));
  const text = found.join(" · ");
  return shown.dated || days ? t("page.shown_filters.in_zone", { text, zone: shown.zone }) : text;
}

/** The filters of a bundle's datasets by the names of their columns, such as `ledger.kind`; others as they are. */
export const flattenFilters = (wanted) =>
  Object.fromEntries(
    Object.entries(wanted ?? {}).flatMap(([name, tests]) =>
      isGroup(tests) ? Object.entries(tests).map(([column, own]) => [`${name}.${column}`, own]) : [[name, tests]],
    ),
  );

const TESTS = new Set(["eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "prefix", "contains", "is_null"]);

const isGroup = (tests) => tests !== null && typeof tests === "object" && !Array.isArray(tests) && !Object.keys(tests).every((name) => TESTS.has(name));

/**
 * The tests of a column, with days for times between which there are whole days, as the service counts them: a time
 * without an offset or a zone is one of UTC, and `timestamp` has days of its own times.
 */
export function asDays(tests, zone, kind) {
  if (!isTests(tests) || (kind !== "timestamp" && kind !== "timestamptz")) return tests;
  const { gte, lt, ...others } = tests;
  const named = [gte, lt].map((text) => INSTANT.exec(text) ?? []).some(([, , , , , name]) => name);
  if (kind === "timestamp" && named) return tests;
  const [first, end] = [gte, lt].map((text) => localTime(asUtc(text), { zone: kind === "timestamp" ? "UTC" : zone }));
  if (!first?.whole || !end?.whole || first.time >= end.time || [first, end].some((own) => own.zone && own.zone !== zone)) return tests;
  const [from, to] = [first.time, end.time - MILLISECONDS_OF_DAY].map((time) => new Date(time).toISOString().slice(0, 10));
  return { gte: from, lte: to, ...others };
}

/** The days, or the times, of a run's window, in its zone as `runTime` shows a time. */
export function windowText({ from, to, timezone }) {
  const zone = isZone(timezone) ? timezone : "UTC";
  const shown = { zone, dated: false };
  const [first, end] = [from, to].map((text) => localTime(text, shown));
  const text = first.whole && end.whole ? daysOf(first, end) : t("page.shown_filters.span", { first: shownMoment(first), last: shownMoment(end) });
  return t("page.shown_filters.in_zone", { text, zone });
}

const RELATIVE = /^(today|yesterday|tomorrow|start_of_(week|month|quarter|year))(?:([+-]\d+)(d|w|mo|y))?$/;

/** The day of a relative day, counted from `today`, as if in UTC. */
function relativeDay(text, today) {
  const [, name, part, count = 0, unit] = RELATIVE.exec(text);
  const day = new Date(today - (today % MILLISECONDS_OF_DAY));
  const [month, number] = [day.getUTCMonth(), day.getUTCDate()];
  if (name === "yesterday" || name === "tomorrow") day.setUTCDate(number + (name === "tomorrow" ? 1 : -1));
  else if (part === "week") day.setUTCDate(number - ((day.getUTCDay() + 6) % 7));
  else if (part) day.setUTCMonth({ month, quarter: month - (month % 3), year: 0 }[part], 1);
  const steps = Number(count) * (unit === "w" ? 7 : unit === "y" ? 12 : 1);
  if (unit === "mo" || unit === "y") day.setUTCMonth(day.getUTCMonth() + steps);
  else day.setUTCDate(day.getUTCDate() + steps);
  return day.getTime();
}

const ORDER = ["eq", "gte", "gt", "lt", "lte"];

function columnTexts(column, tests, shown) {
  const period = periodOf(tests);
  if (period) {
    const days = shown.today && daysOf(...[tests.gte, tests.lt].map((text) => ({ time: relativeDay(text, shown.today) })));
    return [t("page.shown_filters.period", { column, period: days ? t("page.shown_filters.in_zone", { text: period.name, zone: days }) : period.name })];
  }
  const { gte, lt, lte, ...others } = tests;
  const rest = (more) => Object.entries({ ...others, ...more }).map(([name, value]) => testText(column, name, value, shown));
  const first = localTime(gte, shown) ?? startOfDay(gte);
  const end = localTime(lt, shown) ?? startOfDay(lt);
  if (first?.whole && end?.whole && first.zone === end.zone && first.time < end.time) return [t("page.shown_filters.period", { column, period: daysOf(first, end) }), ...rest(lte === undefined ? {} : { lte })];
  if (isDay(gte) && isDay(lte)) return [t("page.shown_filters.days", { column, first: shownDay(gte), last: shownDay(lte) }), ...rest(lt === undefined ? {} : { lt })];
  const entries = Object.entries(tests).sort(([one], [other]) => ORDER.indexOf(one) - ORDER.indexOf(other));
  return entries.map(([name, value]) => testText(column, name, value, shown));
}

export const isTests = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const DAY = /^(\d{4}-\d\d-\d\d)(?:\[([\w+/-]+)\])?$/;
const isDay = (value) => typeof value === "string" && DAY.test(value);
const LAST_DAYS = /^now-(\d+)d$/;
const INSTANT = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(?:\.\d+)?(Z|[+-]\d\d:?\d\d)?(?:\[([\w+/-]+)\])?$/;
const MILLISECONDS_OF_DAY = 24 * 3600 * 1000;
const PARTS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

/** A day for people, with its zone if it names one. */
function shownDay(value) {
  const [, text, zone] = DAY.exec(value);
  const shown = dayOf(Date.parse(text));
  return zone ? t("page.shown_filters.in_zone", { text: shown, zone }) : shown;
}

const dayOf = (time) => new Intl.DateTimeFormat(locale, { ...DATE, timeZone: "UTC" }).format(time);

/**
 * What a clock in the zone shows at a time: {time: as if it were in UTC, whole: whether a day begins, zone}.
 * Null if the text is no time, or has no zone that is known here.
 */
function localTime(value, shown) {
  const [, date, clock, seconds = ":00", offset, named] = INSTANT.exec(value) ?? [];
  if (!date) return null;
  let time = Date.parse(`${date}T${clock}${seconds}Z`);
  if (offset) {
    const zone = named ?? shown.zone;
    const instant = Date.parse(value.replace(/\[.*/, "").replace(" ", "T"));
    try {
      const parts = Object.fromEntries(new Intl.DateTimeFormat("en", { ...PARTS, timeZone: zone }).formatToParts(instant).map(({ type, value: part }) => [type, part]));
      time = Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second);
    } catch {
      return null; // this browser does not know the zone
    }
    if (!named) shown.dated = true;
  }
  return { time, whole: time % MILLISECONDS_OF_DAY === 0, zone: named };
}

/** A time without an offset or a zone, as one of UTC. */
function asUtc(value) {
  const [, , , , offset, named] = INSTANT.exec(value) ?? [null, null, null, null, "Z"];
  return offset || named ? value : `${value}Z`;
}

function startOfDay(value) {
  const [, date, zone] = DAY.exec(value) ?? [];
  return date ? { time: Date.parse(date), whole: true, zone } : null;
}

/** The days from one that begins at `first` to the one before `end`. */
function daysOf(first, end) {
  const last = end.time - MILLISECONDS_OF_DAY;
  const text = first.time === last ? dayOf(last) : t("page.shown_filters.span", { first: dayOf(first.time), last: dayOf(last) });
  return first.zone ? t("page.shown_filters.in_zone", { text, zone: first.zone }) : text;
}

function shownMoment({ time, zone }) {
  const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", timeZone: "UTC" }).format(time);
  const text = t("page.numbers.moment", { date: dayOf(time), time: clock });
  return zone ? t("page.shown_filters.in_zone", { text, zone }) : text;
}

function testText(column, name, value, shown) {
  if (name === "is_null") return value ? t("page.shown_filters.empty", { column }) : t("page.shown_filters.not_empty", { column });
  const days = LAST_DAYS.exec(value);
  if (days && (name === "gte" || name === "gt")) return t("page.shown_filters.last_days", { column, count: Number(days[1]) });
  if (isDay(value) && has(`page.day_operators.${name}`)) {
    const words = { column, operator: t(`page.day_operators.${name}`), day: shownDay(value) };
    return name === "lte" ? t("page.shown_filters.last_day", words) : t("page.shown_filters.day", words);
  }
  const moment = localTime(value, shown);
  if (moment && has(`page.day_operators.${name}`)) {
    const begins = moment.whole && (name === "gte" || name === "lt");
    return t("page.shown_filters.day", { column, operator: t(`page.day_operators.${name}`), day: begins ? dayOf(moment.time) : shownMoment(moment) });
  }
  const sign = { eq: "=", ne: "≠", lt: "<", lte: "≤", gt: ">", gte: "≥" }[name] ?? operator(name);
  const texts = Array.isArray(value) ? value.slice(0, 5).join(", ") + (value.length > 5 ? " …" : "") : value;
  return `${column} ${sign} ${texts === null ? t("page.shown_filters.empty_value") : texts}`;
}
