// Filters: rows with a column, an operator, and an input for the value.

import { button, checkbox, choice, element } from "./dom.js";
import { PERIODS, isTests, periodOf } from "./filter_texts.js";
import { labelOf } from "./labels.js";
import { locale, t } from "./messages.js";
import { TIMES, operator } from "./words.js";

const DATE = /^\d{4}-\d\d-\d\d$/;
const TIME = /^\d\d:\d\d(:\d\d)?$/;
const MOMENT = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(Z|\+00:00)?)?(?:\[([\w+/-]+)\])?$/;
const BOUNDS = ["gte", "lte"];
const PAIRED = new Set([...TIMES, "integer", "numeric", "float"]);
const NUMBERS = {
  integer: { form: /^[+-]?\d{1,19}$/, title: t("page.filters.integer"), inputMode: "numeric" },
  numeric: { form: /^[+-]?(\d+\.?\d*|\.\d+)$/, title: t("page.filters.number"), inputMode: "decimal" },
  float: { form: /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/, title: t("page.filters.number"), inputMode: "decimal" },
};
const COMMA = new Intl.NumberFormat(locale).formatToParts(0.5).some(({ type, value }) => type === "decimal" && value === ",");
const GROUPED = /^[+-]?\d{1,3}([.,'’\s]\d{3})+([.,]\d+)?$/;
const TEXTS = {
  uuid: { pattern: "[0-9a-fA-F\\-]{32,36}", title: t("page.filters.uuid"), required: true },
};

/** The conditions of a column: its operators, and those of two operators together. */
function conditions({ kind, operators }) {
  if (!PAIRED.has(kind) || !BOUNDS.every((own) => operators.includes(own))) return operators;
  return TIMES.has(kind) ? ["between", ...(kind === "time" ? [] : ["period"]), ...operators] : [...operators, "between"];
}

/** The operators that a condition stands for. */
const meant = (how) => ({ between: BOUNDS, period: ["gte", "lt"] })[how] ?? [how];

/** The inputs for a value; `write` returns whether they can show it. `zone()` is the time zone of times. */
export function inputs(column, name, zone, label = t("page.filters.value", { column: column.name })) {
  if (name === "between") return between(column, zone, label);
  if (name === "period") return select(label, PERIODS.map((period) => [period.tests, period.name]), (own, given) => periodOf(given) === periodOf(own));
  if (name === "is_null") return select(label, [[true, t("page.filters.yes")], [false, t("page.filters.no")]]);
  if (column.kind === "boolean") return select(label, [[true, t("page.filters.true")], [false, t("page.filters.false")]]);
  if (name === "in" || name === "not_in") return column.values ? boxes(label, column.values) : lines(label);
  if (column.values) return select(label, column.values.map((value) => [value, value]));
  if (name === "prefix" || name === "contains") return text(label, { required: true });
  if (column.kind === "timestamp" || column.kind === "timestamptz") return moments(label, column.kind, zone);
  if (column.kind === "date") return text(label, { type: "date", required: true }, DATE);
  if (column.kind === "time") return text(label, { type: "time", step: 1, required: true }, TIME);
  if (NUMBERS[column.kind]) return number(label, NUMBERS[column.kind]);
  return text(label, TEXTS[column.kind] ?? { required: true });
}

/** A number, with a decimal point or comma. Where it could be a thousand or a thousandth, neither is assumed. */
function number(label, { form, ...properties }) {
  const own = text(label, { ...properties, required: true });
  const { element: input } = own;
  const plain = () => input.value.trim().replace("−", "-").replace(",", ".");
  input.addEventListener("input", () => {
    const given = input.value.trim().replace("−", "-");
    const single = /^[+-]?\d+[.,]\d+$/.test(given) && given.includes(",") === COMMA;
    const isGrouped = GROUPED.test(given) && !single;
    const decimals = properties.inputMode === "decimal" || !/[.,]/.test(given);
    const wrong = isGrouped ? t("page.filters.thousands") : t("page.form.expected", { what: properties.title });
    input.setCustomValidity(given === "" || (!isGrouped && decimals && form.test(plain())) ? "" : wrong);
  });
  return { ...own, read: plain };
}

/** Two inputs, for the first and the last value. */
function between(column, zone, label) {
  const words = [t("page.filters.from"), t("page.filters.to")];
  const [first, last] = BOUNDS.map((name, index) => inputs(column, name, zone, t("page.filters.part", { label, part: words[index] })));
  const both = element("div", { class: "between" }, element("span", { class: "hint" }, words[0]), first.element, element("span", { class: "hint" }, words[1]), last.element);
  const field = (own) => (own.element.matches("input") ? own.element : own.element.querySelector("input"));
  const check = () => {
    const [low, high] = [first, last].map((own) => (TIMES.has(column.kind) ? own.read() : Number(own.read())));
    const isReversed = field(first).value && field(last).value && high < low;
    if (isReversed || field(last).validationMessage === t("page.filters.reversed")) field(last).setCustomValidity(isReversed ? t("page.filters.reversed") : "");
  };
  both.addEventListener("input", check);
  return {
    element: both,
    read: () => ({ gte: first.read(), lte: last.read() }),
    write(given) {
      const fits = [first.write(given.gte), last.write(given.lte)].every(Boolean);
      check();
      return fits;
    },
  };
}

function select(label, pairs, same = (own, given) => own === given) {
  const list = choice(pairs.map(([, word], index) => [index, word]), { "aria-label": label });
  return {
    element: list,
    read: () => pairs[list.value][0],
    write(value) {
      const index = pairs.findIndex(([own]) => same(own, value));
      if (index >= 0) list.value = index;
      return index >= 0;
    },
  };
}

function boxes(label, values) {
  const labels = values.map((value) => checkbox(value, { value }));
  const ticks = labels.map((own) => own.firstChild);
  const check = () => ticks[0].setCustomValidity(ticks.some((box) => box.checked) ? "" : t("page.filters.no_value"));
  check();
  return {
    element: element("div", { class: "ticks", role: "group", "aria-label": label, onchange: check }, labels),
    read: () => ticks.filter((box) => box.checked).map((box) => box.value),
    write(wanted) {
      for (const box of ticks) box.checked = wanted.includes(box.value);
      check();
      return wanted.every((value) => values.includes(value));
    },
  };
}

function lines(label) {
  const input = element("textarea", { "aria-label": label, rows: 3, required: true, placeholder: t("page.filters.lines") });
  return {
    element: input,
    read: () => input.value.split("\n").map((line) => line.trim()).filter(Boolean),
    write(values) {
      input.value = values.join("\n");
      return true;
    },
  };
}

/** One input; `form` is what it can show. */
function text(label, properties, form = /^/) {
  const input = element("input", { "aria-label": label, spellcheck: false, placeholder: properties.title, ...properties });
  return {
    element: input,
    read: () => input.value,
    write(value) {
      input.value = typeof value === "object" ? JSON.stringify(value) : value;
      if (value === "") input.required = false; // the request has an empty text
      return value === "" || form.test(value);
    },
  };
}

/** A date and, if wanted, a time; without a time it is the whole day. */
function moments(label, kind, zone) {
  const date = element("input", { type: "date", "aria-label": t("page.filters.date", { label }), required: true });
  const time = element("input", { type: "time", "aria-label": t("page.filters.time", { label }) });
  const suffix = () => (kind === "timestamp" ? "" : zone() === "UTC" ? "Z" : `[${zone()}]`);
  return {
    element: element("div", { class: "moment" }, date, time),
    read: () => date.value + (time.value && `T${time.value}${suffix()}`),
    write(value) {
      if (value === "") return true;
      const [, day, clock, , named] = MOMENT.exec(value) ?? [];
      // Without a zone the service takes a time for one of UTC; read() gives it the zone of the form.
      if (!day || !(kind === "timestamp" ? !named : named ? named === zone() : !clock || zone() === "UTC")) return false;
      date.value = day;
      time.step = clock?.length > 5 ? 1 : 60; // seconds only where there are some
      time.value = clock ?? "";
      return true;
    },
  };
}

/** The filters of an export; `changed` is called when one is added or removed, `zone()` is the time zone of times. */
export class Filters {
  constructor(changed, zone) {
    this.changed = changed;
    this.zone = zone;
    this.columns = [];
    this.items = new Set();
    this.list = element("ul", { class: "filters", "aria-label": t("page.filters.title") });
    this.adder = button(t("page.filters.add"), () => this.add().focus());
    this.element = element("div", { class: "filter-box" }, this.list, this.adder);
  }

  /** Remove all filters, for another dataset. */
  use(columns) {
    this.columns = columns.filter((column) => column.operators.length);
    this.items.clear();
    this.list.replaceChildren();
    this.adder.hidden = !this.columns.length;
  }

  /** The kind of a column, or undefined. */
  kindOf(name) {
    return this.columns.find((column) => column.name === name)?.kind;
  }

  add(name = this.columns[0].name, test, value) {
    const columns = this.columns.map((column) => [column.name, labelOf(column)]);
    const which = choice(columns, { "aria-label": t("page.filters.column"), class: "which" });
    const how = element("select", { "aria-label": t("page.filters.condition"), class: "how" });
    const place = element("div", { class: "value" });
    const drop = button("×", () => {
      this.items.delete(item);
      row.remove();
      (this.list.querySelector(".drop") ?? this.adder).focus();
      this.changed();
    }, "quiet drop");
    const row = element("li", { class: "filter" }, which, how, place, drop);
    const item = { row, which, how };
    const column = () => this.columns.find((own) => own.name === which.value);
    const operators = () => {
      how.replaceChildren(...conditions(column()).map((own) => element("option", { value: own }, operator(own, column().kind))));
    };
    const values = (given) => {
      drop.setAttribute("aria-label", t("page.filters.remove", { column: `${which.value}: ${operator(how.value, column().kind)}` }));
      item.input = inputs(column(), how.value, this.zone);
      if (given !== undefined && !item.input.write(given)) {
        item.input = text(t("page.filters.value", { column: which.value }), { required: true });
        item.input.write(given);
      }
      place.replaceChildren(item.input.element);
    };
    which.onchange = () => (operators(), values(), this.changed());
    how.onchange = () => (values(), this.changed());
    which.value = name;
    operators();
    if (test) how.value = test;
    values(value);
    this.items.add(item);
    this.list.append(row);
    this.changed();
    return which;
  }

  read() {
    const found = {};
    for (const { which, how, input } of this.items) {
      const value = input.read();
      Object.assign((found[which.value] ??= {}), meant(how.value).length > 1 ? value : { [how.value]: value });
    }
    return found;
  }

  /** Mark repeated filters, because only one of them could be sent. */
  check() {
    const seen = new Set();
    for (const { which, how } of this.items) {
      const keys = meant(how.value).map((name) => JSON.stringify([which.value, name]));
      how.setCustomValidity(keys.some((key) => seen.has(key)) ? t("page.filters.repeated") : "");
      for (const key of keys) seen.add(key);
    }
  }

  /** Show the filters of a job; return the names of columns that no longer exist. */
  write(wanted) {
    const missing = [];
    for (const [name, tests] of Object.entries(wanted ?? {})) {
      const column = this.columns.find((own) => own.name === name);
      if (!column) {
        missing.push(name);
        continue;
      }
      for (let [test, value] of together(column, isTests(tests) ? tests : { eq: tests })) {
        if (value === null && (test === "eq" || test === "ne")) [test, value] = ["is_null", test === "eq"];
        if (conditions(column).includes(test)) this.add(name, test, value);
        else missing.push(`${name} ${test}`);
      }
    }
    return missing;
  }

  /** Mark the filters that an error names; null marks none. */
  mark(name) {
    for (const { which, row } of this.items) row.classList.toggle("wrong", which.value === name);
  }
}

/** The conditions of a column with their values: two operators that belong together are one. */
function together(column, tests) {
  const { gte, lt, lte, ...others } = tests;
  if (periodOf(tests) && conditions(column).includes("period")) return [["period", tests]];
  if (gte === undefined || lte === undefined || !conditions(column).includes("between")) return Object.entries(tests);
  return [["between", { gte, lte }], ...Object.entries({ ...others, ...(lt !== undefined && { lt }) })];
}
