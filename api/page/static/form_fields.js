// Fields of the form: the columns, the time zone, and who gets a mail.

import { button, checkbox, element, field, hasOption } from "./dom.js";
import { labelOf } from "./labels.js";
import { t } from "./messages.js";

const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The columns of an export. */
export class ColumnChoice {
  /** `changed` is called when a button has changed the choice. */
  constructor(changed) {
    this.changed = changed;
    this.list = element("div", { class: "columns", role: "group", "aria-label": t("page.form.columns") });
    this.summary = element("span");
    this.element = element(
      "details",
      {},
      element("summary", {}, t("page.form.columns"), this.summary),
      element("p", { class: "buttons" }, button(t("page.form.all"), () => this.checkAll(true)), button(t("page.form.none"), () => this.checkAll(false))),
      this.list,
    );
  }

  /** Offer the columns of a dataset. All are chosen. */
  use(columns) {
    this.list.replaceChildren(...columns.map(columnCheckbox));
  }

  get boxes() {
    return [...this.list.querySelectorAll("input")];
  }

  get checked() {
    return this.boxes.filter((box) => box.checked);
  }

  checkAll(on) {
    for (const box of this.boxes) box.checked = on;
    this.changed();
  }

  /** Return the names of the chosen columns, or null for all. */
  read() {
    const { boxes, checked } = this;
    return checked.length < boxes.length ? checked.map((box) => box.value) : null;
  }

  /** Choose the columns of a job. Without names the choice stays. */
  write(names) {
    if (names) for (const box of this.boxes) box.checked = names.includes(box.value);
    this.element.open = Boolean(names);
  }

  /** Show how many columns are chosen. None is an error. */
  summarize() {
    const { boxes, checked } = this;
    const count = boxes.length;
    this.summary.textContent = checked.length === count ? t("page.form.all_columns", { count }) : t("page.form.some_columns", { ticked: checked.length, count });
    boxes[0]?.setCustomValidity(checked.length ? "" : t("page.form.no_column"));
  }
}

/** A checkbox for a column, with its label, or else its name. */
function columnCheckbox({ masked, ...column }) {
  const label = labelOf(column);
  const facts = [label !== column.name && column.name, masked && t("page.form.masked")];
  return checkbox(label, { value: column.name, checked: true }, facts.filter(Boolean).join(" · "));
}

/** The time zone of the times in a file and in filters. */
export class ZoneChoice {
  /** `repeat` is the part of the form for schedules, which have a time zone too. */
  constructor(repeat) {
    this.repeat = repeat;
    this.select = element("select");
    this.element = field(t("page.form.zone"), this.select, t("page.form.zone_hint"));
  }

  /** Offer the time zones; the first one is that of the dataset, or else that of the browser. `fields`: what filters can name. */
  use({ timezone }, fields) {
    this.datasetZone = timezone ?? "UTC";
    this.defaultZone = timezone ? null : HERE; // the user has not chosen it
    const likely = [...new Set([timezone ?? HERE, this.datasetZone, HERE, "UTC"])];
    const others = Intl.supportedValuesOf("timeZone").filter((name) => !likely.includes(name));
    this.select.replaceChildren(
      ...likely.map((name) => element("option", { value: name }, name)),
      element("optgroup", { label: t("page.form.all_zones") }, others.map((name) => element("option", { value: name }, name))),
    );
    this.hasZonedTimes = fields.some(({ kind }) => kind === "timestamptz");
  }

  /** Whether files have the zone of the schedule. */
  get followsSchedule() {
    return this.repeat.active && this.select.value === this.defaultZone;
  }

  /** The zone of times in the file. */
  get fileZone() {
    return this.followsSchedule ? this.repeat.zone.value : this.select.value;
  }

  /** The zone of days and times in filters. */
  get filterZone() {
    return this.repeat.active && this.fileZone === this.datasetZone ? this.repeat.zone.value : this.fileZone;
  }

  /** Return the zone of the file, or null if it is that of the dataset. */
  read() {
    return this.hasZonedTimes && this.fileZone !== this.datasetZone ? this.fileZone : null;
  }

  /** Show the zone of a job, of a run, whose zone is that of its days, or of a schedule. */
  write({ schedule, timezone, window, options }) {
    const zone = window?.timezone ?? options?.timezone ?? this.datasetZone;
    if (!hasOption(this.select, zone)) this.select.prepend(element("option", { value: zone }, zone));
    this.select.value = zone;
    if (schedule && this.defaultZone) this.defaultZone = zone === timezone ? zone : null;
  }

  /** Show the field where it has a use, and at both fields what the zones are used for. */
  show() {
    const { repeat, followsSchedule, hasZonedTimes } = this;
    const isOfFilters = repeat.active && this.filterZone === repeat.zone.value;
    this.element.hidden = !hasZonedTimes || followsSchedule;
    this.element.querySelector(".hint").textContent = isOfFilters ? t("page.form.zone_of_file") : t("page.form.zone_hint");
    if (followsSchedule && hasZonedTimes) repeat.showZone("zone_hint");
    else repeat.showZone(isOfFilters ? "zone_of_filters" : null);
  }
}

/** Who gets a mail about an export. */
export class Recipients {
  constructor() {
    this.input = element("textarea", { rows: 2, spellcheck: false, placeholder: "ada@example.com" });
    this.summary = element("span");
    this.element = element("details", {}, element("summary", {}, t("page.form.mail"), this.summary), field(t("page.form.mail_to"), this.input, t("page.form.mail_hint")));
  }

  /** Return the addresses, each once. */
  read() {
    return [...new Set(this.input.value.split(/[;\n]+/).flatMap(addressesIn))];
  }

  write(addresses) {
    this.input.value = addresses.join("\n");
  }

  /** Say which address cannot be one, at the field. */
  check() {
    const wrong = this.read().find((address) => !/^[^\s@]+@[^\s@]+$|^\w+:/.test(address));
    this.input.setCustomValidity(wrong ? t("page.form.bad_address", { address: wrong }) : "");
  }

  /** Show in the closed part of the form what is in it. */
  summarize() {
    const count = this.read().length;
    this.summary.textContent = count ? t("page.form.addresses", { count }) : t("page.form.no_addresses");
  }

  /** Mark the address that an error names, and name it in the message of the error. */
  mark(failure) {
    const [, index] = /^(?:email_)?recipients\.(\d+)/.exec(failure.field ?? "") ?? [];
    if (!index) return;
    failure.message = t("page.form.bad_address", { address: this.read()[index] });
    this.element.open = true;
    this.input.setCustomValidity(failure.message);
  }
}

/** The addresses in a text; with mail programs' names before them, such as in `Lovelace, Ada <ada@example.com>`. */
function addressesIn(text) {
  const named = [...text.matchAll(/<([^<>\s]+)>/g)].map(([, address]) => address);
  const words = text.replace(/<[^<>\s]+>/g, " ").split(/[\s,]+/).filter(Boolean);
  return named.length ? [...named, ...words.filter((word) => word.includes("@"))] : words;
}
