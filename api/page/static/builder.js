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
const PAGES = ["A4", "A3", "LETTER", "LEGAL", "TABLOID"].map((name) => [name, name]);

/** The formats that have the option, and its default, which is not sent. */
const OPTIONS = {
  compression: { label: "Compression", fits: (format) => format.compressible, usual: "none", make: () => choice(COMPRESSIONS) },
  delimiter: { label: "Separator of columns", fits: isCsv, usual: ",", make: () => choice(DELIMITERS) },
  null: { label: "Text for missing values", fits: isCsv, usual: "", make: () => h("input", { maxLength: 20, pattern: "[A-Za-z0-9_\\\\<>\\(\\)\\-.\\/]*", title: "letters, digits and _ \\ < > ( ) - . /" }) },
  header: { label: "First line has the column names", fits: isCsv, usual: true },
  bom: { label: "Byte order mark", fits: isCsv, usual: false },
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
    this.filters = new Filters(changed);
    this.scope = choice([["own", "My own"], ["all", "All users’"]]);
    this.scopeField = field("Whose rows", this.scope);
    this.options = h("div", { class: "options" });
    this.optionsBox = h("details", {}, h("summary", {}, "Options"), this.options);
    this.division = new Division();
    this.mail = h("textarea", { rows: 2, spellcheck: false, placeholder: "ada@example.com" });
    this.repeat = new Repeat(changed);
    this.estimate = h("p", { class: "estimate", role: "status" });
    this.problem = alert();
    this.submit = h("button", { class: "primary" });
    form.replaceChildren(
      h("div", { class: "pair" }, field("Dataset", this.dataset), field("Format", this.format)),
      this.about,
      this.manner,
      this.scopeField,
      h("div", { class: "part" }, h("h3", {}, "Filters"), this.filters.element),
      this.columnsBox,
      this.optionsBox,
      this.division.element,
      this.repeat.element,
      h("details", {}, h("summary", {}, "Mail"), field("Send a mail to these addresses when it is ready", this.mail, "One per line")),
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
    this.dataset.replaceChildren(...datasets.map(({ name }) => h("option", { value: name }, name)));
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
    this.scopeField.hidden = !this.user.all || !dataset.has_owner;
    this.scope.value = this.user.all && !dataset.has_owner ? "all" : "own";
    this.repeat.use(dataset.has_time);
    this.changed();
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
          const label = tick(option.label, { checked: option.usual });
          this.controls[name] = label.firstChild;
          return label;
        }
        this.controls[name] = option.make();
        return field(option.label, this.controls[name]);
      });
    this.options.replaceChildren(...parts);
    this.optionsBox.hidden = !parts.length;
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

  /** Show the request of a job again. */
  fill(job) {
    const gone = [];
    if (this.datasets.has(job.export_type)) this.dataset.value = job.export_type;
    else gone.push(job.export_type);
    if (this.formats.has(job.format)) this.format.value = job.format;
    else gone.push(job.format);
    this.useDataset();
    this.useFormat();
    if (!this.scopeField.hidden) this.scope.value = job.scope ?? "own";
    if (job.columns) for (const box of this.boxes()) box.checked = job.columns.includes(box.value);
    gone.push(...this.filters.write(job.filters));
    for (const [name, control] of Object.entries(this.controls)) {
      const value = job.options?.[name] ?? OPTIONS[name].usual;
      if (control.type === "checkbox") control.checked = value;
      else control.value = value;
    }
    this.division.write(job.split);
    this.repeat.once();
    this.columnsBox.open = Boolean(job.columns);
    this.changed();
    say(this.problem, gone.length ? `These columns no longer exist and were left out: ${gone.join(", ")}` : "");
    this.form.parentElement.scrollIntoView({ block: "start" });
    this.dataset.focus({ preventScroll: true });
  }

  changed() {
    const boxes = this.boxes();
    const ticked = boxes.filter((box) => box.checked).length;
    this.columnsSummary.textContent = ticked === boxes.length ? `all ${ticked}` : `${ticked} of ${boxes.length}`;
    boxes[0]?.setCustomValidity(ticked ? "" : "Tick at least one column");
    this.filters.check();
    this.filters.mark(null);
    this.submit.textContent = this.repeat.active ? "Schedule" : "Export";
    clearTimeout(this.timer);
    this.asking?.abort();
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  async ask() {
    if (!this.form.checkValidity() || this.datasets.get(this.dataset.value)?.error) {
      this.show("");
      return;
    }
    this.asking = new AbortController();
    try {
      const body = this.read();
      const answer = await call("POST", "exports/jobs:estimate", { body, signal: this.asking.signal });
      const amount = (answer.exact ? "" : answer.at_least ? "At least " : "About ") + rows(answer.rows) + (answer.bytes === null ? "" : `, ${size(answer.bytes)}`);
      this.show(answer.fits ? amount : `${amount}. ${answer.reason}`, !answer.fits);
    } catch (failure) {
      if (failure.name === "AbortError") return;
      this.show(failure.message, true);
      this.point(failure);
    }
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
    const order = this.read();
    const addresses = this.mail.value.split(/[\s,;]+/).filter(Boolean);
    busy(this.submit, this.problem, async () => {
      try {
        if (this.repeat.active) {
          const body = { ...order, ...this.repeat.read(), ...(addresses.length && { email_recipients: addresses }) };
          await call("POST", "exports/schedules", { body });
          this.repeat.once();
          this.changed();
          await this.heard.scheduled();
        } else {
          const body = { ...order, ...(addresses.length && { recipients: addresses }) };
          const headers = { Prefer: `wait=${WAIT}` };
          const job = await call("POST", "exports/jobs", { body, headers });
          await this.heard.ordered(job.export_job_id, { download: Boolean(job.download_url) });
        }
      } catch (failure) {
        this.point(failure);
        throw failure;
      }
    });
  }
}
