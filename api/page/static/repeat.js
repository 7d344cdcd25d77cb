// The part of the form for schedules.

import { choice, field, h } from "./dom.js";

const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const PERIODS = { daily: "day", weekly: "week", monthly: "month" };

/** A schedule in words. */
export function rhythm({ schedule, day, time_of_day: time, timezone }) {
  const at = `at ${(time ?? "00:00").slice(0, 5)} (${timezone})`;
  if (schedule === "daily") return `every day ${at}`;
  if (schedule === "weekly") return `every ${WEEKDAYS[day ?? 0]} ${at}`;
  if (schedule === "monthly") return `on day ${day ?? 1} of every month ${at}`;
  return `by cron “${schedule}” (${timezone})`;
}

export class Repeat {
  constructor(changed) {
    const rhythms = [["", "Run once now"], ["daily", "Every day"], ["weekly", "Every week"], ["monthly", "Every month"]];
    this.every = choice(rhythms);
    this.weekday = choice(WEEKDAYS.map((name, index) => [index, name]));
    this.monthday = h("input", { type: "number", min: 1, max: 31, value: 1, required: true });
    this.time = h("input", { type: "time", value: "06:00", required: true });
    this.zone = h("input", { value: HERE, required: true, spellcheck: false, autocomplete: "off" });
    this.zone.setAttribute("list", "zones");
    this.window = h("select");
    this.weekdayField = field("On", this.weekday);
    this.monthdayField = field("On day", this.monthday, "31 is the last day of shorter months");
    this.zoneField = field("Time zone", this.zone, "Of days in filters, too");
    this.details = h(
      "div",
      { class: "repeat" },
      this.weekdayField,
      this.monthdayField,
      h("div", { class: "pair" }, field("At", this.time), this.zoneField),
      field("Which rows", this.window),
      h("datalist", { id: "zones" }, Intl.supportedValuesOf("timeZone").map((zone) => h("option", { value: zone }))),
    );
    this.element = h("div", { class: "part" }, field("Repeat", this.every), this.details);
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

  get active() {
    return this.every.value !== "";
  }

  reset() {
    this.every.value = "";
    this.weekday.value = 0;
    this.monthday.value = 1;
    this.time.value = "06:00";
    this.zone.value = HERE;
    this.window.value = "none";
    this.show();
  }

  show() {
    const period = PERIODS[this.every.value];
    this.details.hidden = !period;
    for (const control of this.details.querySelectorAll("input, select")) control.disabled = !period;
    this.weekdayField.hidden = this.every.value !== "weekly";
    this.monthdayField.hidden = this.every.value !== "monthly";
    this.monthday.disabled = this.monthdayField.hidden;
    const windows = [["none", "All rows, in each run"]];
    if (this.hasTime && period) {
      windows.push(["previous_period", `Rows of the previous ${period}`], ["since_last_run", "Rows since the last run"]);
    }
    const chosen = windows.some(([value]) => value === this.window.value) ? this.window.value : "none";
    this.window.replaceChildren(...windows.map(([value, text]) => h("option", { value }, text)));
    this.window.value = chosen;
  }

  read() {
    const days = { weekly: this.weekday.value, monthly: this.monthday.value };
    return {
      schedule: this.every.value,
      time_of_day: this.time.value,
      timezone: this.zone.value,
      window: this.window.value,
      ...(this.every.value in days && { day: Number(days[this.every.value]) }),
    };
  }
}
