// The part of the form for schedules.

import { choice, element, field, hasOption } from "./dom.js";
import { locale, t } from "./messages.js";

const MONDAY = Date.UTC(2024, 0, 1);
const DAY = 24 * 3600 * 1000; // milliseconds
const weekday = new Intl.DateTimeFormat(locale, { weekday: "long", timeZone: "UTC" });
const WEEKDAYS = [0, 1, 2, 3, 4, 5, 6].map((number) => weekday.format(MONDAY + number * DAY));
const CRON = "cron";
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** A schedule in words. */
export function rhythm({ schedule, day, time_of_day, timezone: zone }) {
  const time = (time_of_day ?? "00:00").slice(0, 5);
  if (schedule === "daily") return t("page.rhythm.daily", { time, zone });
  if (schedule === "weekly") return t("page.rhythm.weekly", { weekday: WEEKDAYS[day ?? 0], time, zone });
  const which = day === 31 ? "last_day" : day > 28 ? "late_day" : "monthly";
  if (schedule === "monthly") return t(`page.rhythm.${which}`, { day: day ?? 1, time, zone });
  return t("page.rhythm.cron", { cron: schedule, zone });
}

export class Repeat {
  constructor(changed) {
    const rhythms = [["", t("page.repeat.once")], ["daily", t("page.repeat.daily")], ["weekly", t("page.repeat.weekly")], ["monthly", t("page.repeat.monthly")], [CRON, t("page.repeat.cron")]];
    this.every = choice(rhythms);
    this.weekday = choice(WEEKDAYS.map((name, index) => [index, name]));
    this.monthday = element("input", { type: "number", min: 1, max: 31, value: 1, required: true });
    this.cron = element("input", { required: true, spellcheck: false, autocomplete: "off", maxLength: 200, placeholder: "30 6 * * MON-FRI", pattern: "\\s*\\S+(\\s+\\S+){4}\\s*", title: t("page.repeat.cron_title") });
    this.time = element("input", { type: "time", value: "06:00", required: true });
    this.zone = element("input", { value: HERE, required: true, spellcheck: false, autocomplete: "off" });
    this.zone.setAttribute("list", "zones");
    this.window = element("select");
    this.weekdayField = field(t("page.repeat.weekday"), this.weekday);
    this.monthdayField = field(t("page.repeat.monthday"), this.monthday, t("page.repeat.monthday_hint"));
    this.cronField = field(t("page.repeat.cron_label"), this.cron, t("page.repeat.cron_hint"));
    this.timeField = field(t("page.repeat.time"), this.time);
    this.zoneField = field(t("page.repeat.zone"), this.zone, t("page.repeat.zone_hint"));
    this.details = element(
      "div",
      { class: "repeat" },
      this.weekdayField,
      this.monthdayField,
      this.cronField,
      element("div", { class: "pair" }, this.timeField, this.zoneField),
      field(t("page.repeat.rows"), this.window),
      element("datalist", { id: "zones" }, Intl.supportedValuesOf("timeZone").map((zone) => element("option", { value: zone }))),
    );
    this.element = element("div", { class: "part" }, field(t("page.repeat.title"), this.every), this.details);
    this.every.onchange = () => {
      this.show();
      changed();
    };
    this.hasTime = false;
  }

  /** `time` is the dataset's time column; without one there are no windows. */
  use(time) {
    this.hasTime = Boolean(time);
    this.show();
  }

  /** Whether the rhythm is that of the calendar of a schedule that exists: it cannot run once instead. */
  keep(on) {
    this.every.querySelector("option").disabled = on;
  }

  get active() {
    return this.every.value !== "";
  }

  reset() {
    this.every.value = "";
    this.weekday.value = 0;
    this.monthday.value = 1;
    this.cron.value = "";
    this.time.value = "06:00";
    this.zone.value = HERE;
    this.window.value = "none";
    this.show();
  }

  /** Show what else the time zone is used for; null hides the text. */
  showZone(key) {
    const hint = this.zoneField.querySelector(".hint");
    hint.hidden = !key;
    if (key) hint.textContent = t(`page.repeat.${key}`);
  }

  show() {
    const { active } = this;
    this.details.hidden = !active;
    for (const control of this.details.querySelectorAll("input,select")) control.disabled = !active;
    this.weekdayField.hidden = this.every.value !== "weekly";
    this.monthdayField.hidden = this.every.value !== "monthly";
    this.monthday.disabled = this.monthdayField.hidden;
    this.cronField.hidden = this.every.value !== CRON;
    this.cron.disabled = this.cronField.hidden;
    this.timeField.hidden = this.every.value === CRON;
    this.time.disabled = !active || this.timeField.hidden;
    const windows = [["none", t("page.repeat.all_rows")]];
    if (this.hasTime && active) {
      windows.push(["previous_period", t(`page.repeat.previous_period.${this.every.value}`)], ["since_last_run", t("page.repeat.since_last_run")]);
    }
    const chosen = windows.some(([value]) => value === this.window.value) ? this.window.value : "none";
    this.window.replaceChildren(...windows.map(([value, text]) => element("option", { value }, text)));
    this.window.value = chosen;
  }

  /** Show the calendar and the window of a schedule. */
  write({ schedule, day, time_of_day: time, timezone, window }) {
    const isCron = !hasOption(this.every, schedule);
    this.every.value = isCron ? CRON : schedule;
    this.cron.value = isCron ? schedule : "";
    this.weekday.value = schedule === "weekly" ? (day ?? 0) : 0;
    this.monthday.value = schedule === "monthly" ? (day ?? 1) : 1;
    this.time.value = time ?? "00:00";
    this.zone.value = timezone ?? HERE;
    this.show();
    this.window.value = window ?? "none";
  }

  read() {
    const days = { weekly: this.weekday.value, monthly: this.monthday.value };
    return {
      schedule: this.every.value === CRON ? this.cron.value.trim() : this.every.value,
      ...(this.every.value !== CRON && { time_of_day: this.time.value }),
      timezone: this.zone.value,
      window: this.window.value,
      ...(this.every.value in days && { day: Number(days[this.every.value]) }),
    };
  }
}
