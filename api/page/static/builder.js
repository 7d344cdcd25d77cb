// The form that builds an export, or a schedule of them.

import { call } from "./api.js";
import { alert, busy, button, choice, field, h, say, tick } from "./dom.js";
import { Division } from "./files.js";
import { Filters } from "./filters.js";
import { Repeat } from "./repeat.js";
import { format as kind, rows, sentence, size } from "./words.js";

const PAUSE = 350; // milliseconds without a change, after which an estimate is asked for
const WAIT = 3; // seconds that a request waits for a small export, whose file is downloaded at once
const COMPRESSIONS = [["none", "None"], ["gzip", "gzip"], ["zstd", "Zstandard"]];
const DELIMITERS = [[",", "Comma"], [";", "Semicolon"], ["\t", "Tab"], ["|", "Bar"]];
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const DECIMAL = new Intl.NumberFormat(navigator.language).formatToParts(0.5).find(({ type }) => type === "decimal")?.value;
const SEPARATOR = DECIMAL === "," ? ";" : ","; // as spreadsheets of this language expect it
const PAGES = ["A4", "A3", "LETTER", "LEGAL", "TABLOID"].map((name) => [name, name]);

/** The formats that have the option, and the default of the service, which is not sent. `first` is what the form begins with, if it differs. */
const OPTIONS = {
  compression: { label: "Compression", fits: (format) => format.compressible, usual: "none", make: () => choice(COMPRESSIONS) },
  delimiter: { label: "Separator of columns", brief: "Separator", fits: isCsv, usual: ",", first: SEPARATOR, make: () => choice(DELIMITERS) },
  null: { label: "Text for missing values", fits: isCsv, usual: "", make: () => h("input", { maxLength: 20, pattern: "[A-Za-z0-9_\\\\<>\\(\\)\\-.\\/]*", title: "letters, digits and _ \\ < > ( ) - . /" }) },
  header: { label: "First line has the column names", fits: isCsv, usual: true },
  bom: { label: "Show special characters such as ä, é and € right in Excel (byte order mark)", brief: "Byte order mark", fits: isCsv, usual: false, first: true },
  guard_formulas: { label: "Prevent texts from running as formulas", fits: isCsv, usual: true },
  title: { label: "Title", fits: isPdf, usual: "", make: () => h("input", { maxLength: 200 }) },
  page_size: { label: "Paper", fits: isPdf, usual: "A4", make: () => choice(PAGES) },
};

function isCsv(format) {
  return format.name === "csv";
}
function isPdf(format) {
  return format.name === "pdf";
}

const beginning = ({ usual, first = usual }) => first;

export class Builder {
  /** `ordered(job id)` is called when an export was requested, `scheduled()` when a schedule was created. */
  constructor(form, user, { ordered, scheduled }) {
    this.form = form;
    this.user = user;
    this.heard = { ordered, scheduled };
    this.timer = 0;
    const changed = () => this.changed();

    this.dataset = h("select", { onchange: () => this.useDataset() });
    this.about = h("p", { class: "hint" });
    this.format = h("select", { onchange: () => this.useFormat() });
    this.manner = h("p", { class: "hint" });
    this.columns = h("div", { class: "columns", role: "group", "aria-label": "Columns" });
    this.columnsSummary = h("span");
    this.columnsBox = h(
      "details",
      {},
      h("summary", {}, "Columns", this.columnsSummary),
      h("p", { class: "buttons" }, button("All", () => this.tickAll(true)), button("None", () => this.tickAll(false))),
      this.columns,
    );
    this.zone = h("select");
    this.zoneField = field("Time zone of days and times", this.zone, "Of the filters and of the file");
    this.filters = new Filters(changed, () => this.effectiveZone());
    this.scope = choice([["own", "My own"], ["all", "All users’"]]);
    this.scopeField = field("Whose rows", this.scope);
    this.options = h("div", { class: "options" });
    this.optionsSummary = h("span");
    this.optionsBox = h("details", {}, h("summary", {}, "Options", this.optionsSummary), this.options);
    this.division = new Division();
    this.mail = h("textarea", { rows: 2, spellcheck: false, placeholder: "ada@example.com" });
    this.mailSummary = h("span");
    this.mailBox = h("details", {}, h("summary", {}, "Mail", this.mailSummary), field("Send a mail to these addresses when it is ready", this.mail, "One per line"));
    this.repeat = new Repeat(changed);
    this.estimate = h("p", { class: "estimate", role: "status" });
    this.problem = alert();
    this.submit = h("button", { class: "primary" });
    form.replaceChildren(
      h("div", { class: "pair" }, field("Dataset", this.dataset), field("Format", this.format)),
      this.about,
      this.manner,
      this.scopeField,
      h("div", { class: "part" }, h("h3", {}, "Filters"), this.filters.element, this.zoneField),
      this.columnsBox,
      this.optionsBox,
      this.division.element,
      this.repeat.element,
      this.mailBox,
      h("div", { class: "send" }, this.estimate, this.problem, this.submit),
    );
    form.oninput = changed;
    form.onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
  }

  /** Set the datasets and formats that GET /exports/datasets returns. */
  use({ datasets, formats }) {
    this.datasets = new Map(datasets.map((dataset) => [dataset.name, dataset]));
    this.formats = new Map(formats.map((format) => [format.name, format]));
    const working = (own) => datasets.filter(({ error }) => Boolean(error) !== own);
    this.dataset.replaceChildren(
      ...working(true).map(({ name }) => h("option", { value: name }, name)),
      ...working(false).map(({ name }) => h("option", { value: name, disabled: working(true).length > 0 }, `${name} (not available)`)),
    );
    this.format.replaceChildren(...formats.map(({ name }) => h("option", { value: name }, kind(name))));
    this.useDataset();
    this.useFormat();
  }

  useDataset() {
    const dataset = this.datasets.get(this.dataset.value);
    if (!dataset) return;
    say(this.about, dataset.error ?? dataset.description);
    this.about.classList.toggle("wrong", Boolean(dataset.error));
    this.columns.replaceChildren(
      ...dataset.columns.map(({ name, type }) => tick(name, { value: name, checked: true }, type)),
    );
    this.filters.use(dataset.columns);
    this.useZones(dataset);
    this.scopeField.hidden = !this.user.all || !dataset.has_owner;
    this.scope.value = this.user.all && !dataset.has_owner ? "all" : "own";
    this.repeat.use(dataset.has_time);
    this.changed();
  }

  /** Offer the time zones; the first one is that of the dataset. */
  useZones(dataset) {
    this.ownZone = dataset.timezone ?? "UTC";
    const likely = [...new Set([this.ownZone, HERE, "UTC"])];
    const others = Intl.supportedValuesOf("timeZone").filter((name) => !likely.includes(name));
    this.zone.replaceChildren(
      ...likely.map((name) => h("option", { value: name }, name)),
      h("optgroup", { label: "All time zones" }, others.map((name) => h("option", { value: name }, name))),
    );
    this.hasZone = dataset.columns.some(({ kind: own }) => own === "timestamptz");
  }

  /** The zone of days and times in filters: that of the schedule, unless another one was chosen. */
  effectiveZone() {
    return this.repeat.active && this.zone.value === this.ownZone ? this.repeat.zone.value : this.zone.value;
  }

  useZone(name) {
    if (![...this.zone.options].some((option) => option.value === name)) this.zone.prepend(h("option", { value: name }, name));
    this.zone.value = name;
  }

  useFormat() {
    const format = this.formats.get(this.format.value);
    if (!format) return;
    say(this.manner, format.description);
    this.controls = {};
    const parts = Object.entries(OPTIONS)
      .filter(([, option]) => option.fits(format))
      .map(([name, option]) => {
        if (!option.make) {
          const label = tick(option.label, { checked: beginning(option) });
          this.controls[name] = label.firstChild;
          return label;
        }
        this.controls[name] = option.make();
        this.controls[name].value = beginning(option);
        return field(option.label, this.controls[name]);
      });
    this.options.replaceChildren(...parts);
    this.optionsBox.hidden = !parts.length;
    this.changed();
  }

  /** Empty the form for the next export: nothing of the last one can slip into it. */
  reset() {
    this.useDataset();
    this.useFormat();
    this.mail.value = "";
    this.division.write(null);
    this.repeat.reset();
    for (const box of this.form.querySelectorAll("details")) box.open = false;
    this.changed();
  }

  tickAll(on) {
    for (const box of this.boxes()) box.checked = on;
    this.changed();
  }

  boxes() {
    return [...this.columns.querySelectorAll("input")];
  }

  /** Return the request body for the API, without defaults. */
  read() {
    const boxes = this.boxes();
    const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
    const filters = this.filters.read();
    const options = {};
    const split = this.division.read();
    for (const [name, control] of Object.entries(this.controls)) {
      const value = control.type === "checkbox" ? control.checked : control.value;
      if (value !== OPTIONS[name].usual) options[name] = value;
    }
    if (this.hasZone && this.zone.value !== this.ownZone) options.timezone = this.zone.value;
    return {
      export_type: this.dataset.value,
      format: this.format.value,
      ...(ticked.length < boxes.length && { columns: ticked }),
      ...(Object.keys(filters).length && { filters }),
      ...(Object.keys(options).length && { options }),
      ...(split && { split }),
      ...(this.scope.value === "all" && { scope: "all" }),
    };
  }

  /** Show the request of a job again, and say whose rows it will have. */
  fill(job) {
    const gone = [];
    this.reset();
    if (this.datasets.has(job.export_type)) this.dataset.value = job.export_type;
    else gone.push(job.export_type);
    if (this.formats.has(job.format)) this.format.value = job.format;
    else gone.push(job.format);
    this.useDataset();
    this.useFormat();
    if (!this.scopeField.hidden) this.scope.value = job.scope ?? "own";
    if (job.columns) for (const box of this.boxes()) box.checked = job.columns.includes(box.value);
    this.useZone(job.options?.timezone ?? this.ownZone);
    gone.push(...this.filters.write(job.filters));
    const whose = this.keepOwner(job);
    for (const [name, control] of Object.entries(this.controls)) {
      const value = job.options?.[name] ?? OPTIONS[name].usual;
      if (control.type === "checkbox") control.checked = value;
      else control.value = value;
    }
    this.division.write(job.split);
    this.columnsBox.open = Boolean(job.columns);
    this.changed();
    const texts = [whose, gone.length && `These no longer exist and were left out: ${gone.join(", ")}`];
    say(this.problem, texts.filter(Boolean).join(". "));
    this.form.parentElement.scrollIntoView({ block: "start" });
    this.dataset.focus({ preventScroll: true });
  }

  /** Keep the rows of another user's own export, if that is possible. Return what the form exports instead. */
  keepOwner(job) {
    if (job.user_id === this.user.id || (job.scope ?? "own") === "all") return "";
    const { owner, columns } = this.datasets.get(this.dataset.value);
    const column = columns.find(({ name }) => name === owner);
    if (!this.user.all || (job.scope ?? "own") !== "own" || !column?.operators.includes("eq") || job.filters?.[owner] !== undefined)
      return `This will export your own rows, not those of ${job.user_id}`;
    this.scope.value = "all";
    this.filters.add(owner, "eq", job.user_id);
    return `This will export the rows of ${job.user_id}, by the filter on ${owner}. The export is yours`;
  }

  addresses() {
    return this.mail.value.split(/[\s,;]+/).filter(Boolean);
  }

  /** Show in the closed parts of the form what is in them. */
  summarize() {
    const changed = Object.entries(this.controls ?? {}).flatMap(([name, control]) => {
      const value = control.type === "checkbox" ? control.checked : control.value;
      if (value === beginning(OPTIONS[name])) return [];
      return `${OPTIONS[name].brief ?? OPTIONS[name].label}: ${control.type === "checkbox" ? (value ? "yes" : "no") : (control.selectedOptions?.[0].textContent ?? value)}`;
    });
    this.optionsSummary.textContent = changed.join(", ") || "usual";
    const number = this.addresses().length;
    this.mailSummary.textContent = number ? `${number} ${number === 1 ? "address" : "addresses"}` : "none";
    this.submit.textContent = (this.repeat.active ? "Schedule" : "Export") + (number ? ` and mail to ${number}` : "");
  }

  changed() {
    const boxes = this.boxes();
    const ticked = boxes.filter((box) => box.checked).length;
    this.columnsSummary.textContent = ticked === boxes.length ? `all ${ticked}` : `${ticked} of ${boxes.length}`;
    boxes[0]?.setCustomValidity(ticked ? "" : "Tick at least one column");
    this.filters.check();
    this.filters.mark(null);
    this.zoneField.hidden = !this.hasZone || (this.repeat.active && this.zone.value === this.ownZone);
    this.summarize();
    this.allow("");
    clearTimeout(this.timer);
    this.asking?.abort();
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    this.allow("");
    if (!this.form.checkValidity() || this.datasets.get(this.dataset.value)?.error) {
      this.show("");
      return;
    }
    this.asking = new AbortController();
    try {
      const body = this.read();
      const answer = await call("POST", "exports/jobs:estimate", { body, signal: this.asking.signal });
      const amount = (answer.exact ? "" : answer.at_least ? "At least " : "About ") + rows(answer.rows) + (answer.bytes === null ? "" : `, ${size(answer.bytes)}`);
      const empty = answer.exact && !answer.rows && !this.repeat.active;
      const reason = answer.fits ? (empty ? "No row matches, so the file would be empty" : "") : answer.reason;
      this.show(reason ? `${amount}. ${reason}` : amount, Boolean(reason));
      this.allow(!answer.fits && (answer.exact || answer.at_least) ? answer.reason : "");
    } catch (failure) {
      if (failure.name === "AbortError") return;
      this.show(failure.message, true);
      this.point(failure);
    }
  }

  /** Refuse to send what cannot work, with the reason; an empty text allows it. */
  allow(reason) {
    this.refusal = reason;
    this.submit.ariaDisabled = reason ? "true" : null; // not disabled: that would take away the focus
  }

  show(text, wrong = false) {
    this.estimate.textContent = sentence(text);
    this.estimate.classList.toggle("wrong", wrong);
  }

  /** Mark the filter that an error names. */
  point(failure) {
    const column = /^filters\.([^.]+)/.exec(failure.field ?? "");
    if (column) this.filters.mark(column[1]);
  }

  send() {
    for (const box of [this.columnsBox, this.division.element]) if (box.querySelector(":invalid")) box.open = true;
    if (!this.form.reportValidity()) return;
    if (this.refusal || this.datasets.get(this.dataset.value)?.error) {
      say(this.problem, this.refusal || "This dataset is not available at the moment");
      return;
    }
    const order = this.read();
    const addresses = this.addresses();
    busy(this.submit, this.problem, async () => {
      try {
        if (this.repeat.active) {
          const body = { ...order, ...this.repeat.read(), ...(addresses.length && { email_recipients: addresses }) };
          await call("POST", "exports/schedules", { body });
          this.reset();
          await this.heard.scheduled();
        } else {
          const body = { ...order, ...(addresses.length && { recipients: addresses }) };
          const headers = { Prefer: `wait=${WAIT}` };
          const job = await call("POST", "exports/jobs", { body, headers });
          this.reset();
          await this.heard.ordered(job.export_job_id, { download: Boolean(job.download_url) });
        }
      } catch (failure) {
        this.point(failure);
        throw failure;
      }
    });
  }
}
