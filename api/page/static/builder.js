// The form that builds an export, or a schedule of them.

import { call, unique } from "./api.js";
import { clearOnRecovery } from "./connection.js";
import { busy, button, checkbox, element, errorMessage, field, focusIfIdle, showMessage } from "./dom.js";
import { Encryption } from "./encryption.js";
import { Division } from "./files.js";
import { asDays, flattenFilters, windowText } from "./filter_texts.js";
import { Filters } from "./filters.js";
import { destinationOf, fieldsOf, labelOf, membersOf, rememberLabels, titleOf } from "./labels.js";
import { has, language, t } from "./messages.js";
import { Options } from "./options.js";
import { Parameters } from "./parameters.js";
import { Repeat } from "./repeat.js";
import { formatName, rows, sentence, size } from "./words.js";

const PAUSE = 350; // milliseconds without a change, after which an estimate is asked for
const WAIT = 3; // seconds that a request waits for a small export, whose file is downloaded at once
// Milliseconds until the datasets are read again while one of them cannot be exported
const SOON = 15_000;
const SELDOM = 300_000;
const REFUSED = new Set([403, 422]); // statuses of an estimate that every try would have
/** What a schedule can have and the form perhaps does not. */
const NO_VALUES = { name: null, filters: null, columns: null, options: null, split: null, encrypt: null, parameters: null, scope: null, destination: null, time_of_day: null, day: null, email_recipients: null };
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Filters by dataset, as a bundle has them. The name of a dataset has no dot. */
function nested(filters) {
  const found = {};
  for (const [name, tests] of Object.entries(filters)) {
    const end = name.indexOf(".");
    (found[name.slice(0, end)] ??= {})[name.slice(end + 1)] = tests;
  }
  return found;
}

export class Builder {
  /** `onRequested(job id)` is called after a request, `onScheduled(id)` after a change of a schedule. `destination`: a field or null. */
  constructor(form, user, { onRequested, onScheduled, destination }) {
    this.form = form;
    form.noValidate = true; // `send` validates
    this.user = user;
    this.callbacks = { onRequested, onScheduled };
    this.timer = 0;
    this.changes = 0;
    this.editing = null;
    this.copiedFields = {}; // what a copy takes over and the form does not have
    const changed = () => this.changed();

    this.editingText = element("span");
    this.editingBox = element("p", { class: "editing", role: "status", hidden: true }, this.editingText, button(t("page.form.stop_editing"), () => this.stopEditing()));
    this.name = element("input", { maxLength: 200, autocomplete: "off", placeholder: t("page.form.name_hint") });
    this.dataset = element("select", { onchange: () => this.useDataset({}) });
    this.about = element("p", { class: "hint" });
    this.format = element("select", { onchange: () => this.useFormat({}) });
    this.formatHint = element("p", { class: "hint" });
    this.columns = element("div", { class: "columns", role: "group", "aria-label": t("page.form.columns") });
    this.columnsSummary = element("span");
    this.columnsBox = element(
      "details",
      {},
      element("summary", {}, t("page.form.columns"), this.columnsSummary),
      element("p", { class: "buttons" }, button(t("page.form.all"), () => this.checkAll(true)), button(t("page.form.none"), () => this.checkAll(false))),
      this.columns,
    );
    this.zone = element("select");
    this.zoneField = field(t("page.form.zone"), this.zone, t("page.form.zone_hint"));
    this.filters = new Filters(changed, () => this.effectiveZone());
    this.parameters = new Parameters(() => this.effectiveZone());
    this.scope = element("select");
    this.scopeField = field(t("page.form.scope"), this.scope);
    this.options = new Options();
    this.division = new Division();
    this.encryption = new Encryption();
    this.destination = destination;
    this.mail = element("textarea", { rows: 2, spellcheck: false, placeholder: "ada@example.com" });
    this.mailSummary = element("span");
    this.mailBox = element("details", {}, element("summary", {}, t("page.form.mail"), this.mailSummary), field(t("page.form.mail_to"), this.mail, t("page.form.mail_hint")));
    this.repeat = new Repeat(changed);
    this.estimate = element("p", { class: "estimate", role: "status" });
    this.problem = errorMessage();
    this.submit = element("button", { class: "primary" });
    form.replaceChildren(
      this.editingBox,
      element("div", { class: "pair" }, field(t("page.form.dataset"), this.dataset), field(t("page.form.format"), this.format)),
      this.about,
      this.formatHint,
      field(t("page.form.name"), this.name),
      this.scopeField,
      this.parameters.element,
      element("div", { class: "part" }, element("h3", {}, t("page.filters.title")), this.filters.element, this.zoneField),
      this.columnsBox,
      this.options.element,
      this.division.element,
      this.encryption.element,
      destination?.element ?? "",
      this.repeat.element,
      this.mailBox,
      element("div", { class: "send" }, this.estimate, this.problem, this.submit),
    );
    form.oninput = changed;
    form.onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
  }

  /** Set the datasets and formats that GET /exports/datasets returns. */
  setCatalogue(catalogue) {
    this.retryPause = SOON;
    this.showCatalogue(catalogue);
    this.useDataset();
  }

  /** Set them again, perhaps in another session. What was entered stays; a dataset that could not be exported begins. */
  updateCatalogue(catalogue) {
    const before = this.dataset.value;
    const broken = this.datasets.get(before)?.error;
    this.showCatalogue(catalogue);
    const { value } = this.dataset;
    if ((value !== before || (broken && !this.datasets.get(value).error)) && !this.editing) this.useDataset();
    this.ask();
  }

  /** Read the datasets again, until each of them can be exported. */
  async retryCatalogue() {
    if (!this.dataset.isConnected) return; // the user has signed out
    if (document.hidden) {
      this.scheduleRetry();
      return;
    }
    this.retryPause = Math.min(this.retryPause * 2, SELDOM);
    try {
      this.updateCatalogue(await call("GET", "exports/datasets", { attempts: 1 }));
    } catch (failure) {
      if (failure.away || failure.status >= 500) this.scheduleRetry();
    }
  }

  scheduleRetry() {
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(() => this.retryCatalogue(), this.retryPause);
  }

  showCatalogue({ datasets, formats, destinations = [] }) {
    clearTimeout(this.retryTimer);
    if (datasets.some(({ error }) => error)) this.scheduleRetry();
    const text = JSON.stringify([datasets, formats, destinations]);
    if (text === this.shownCatalogue) return; // a list that is open stays
    this.shownCatalogue = text;
    const before = this.dataset.value;
    this.datasets = new Map(datasets.map((dataset) => [dataset.name, dataset]));
    this.formats = new Map(formats.map((format) => [format.name, format]));
    const available = datasets.filter(({ error }) => !error);
    const unavailable = datasets.filter(({ error }) => error);
    rememberLabels(datasets, destinations);
    this.dataset.replaceChildren(
      ...available.map((dataset) => element("option", { value: dataset.name }, labelOf(dataset))),
      ...unavailable.map((dataset) => element("option", { value: dataset.name, disabled: available.length > 0 }, t("page.form.not_available", { dataset: labelOf(dataset) }))),
    );
    if (hasOption(this.dataset, before)) this.dataset.value = before;
    if (!datasets.length) showMessage(this.about, t("page.form.no_datasets"));
  }

  useDataset(options) {
    const dataset = this.datasets.get(this.dataset.value);
    if (!dataset) return;
    const limit = dataset.max_rows && t("page.form.row_limit", { rows: rows(dataset.max_rows) });
    const { bundle } = dataset;
    const members = bundle ? membersOf(bundle, this.datasets) : [];
    const parts = bundle && t("page.form.bundle", { datasets: members.map((one) => labelOf(one)).join(", ") });
    showMessage(this.about, dataset.error ? t("page.form.dataset_not_available") : [dataset.description, parts, limit].filter(Boolean).join(" · "));
    this.about.classList.toggle("wrong", Boolean(dataset.error));
    this.columns.replaceChildren(...dataset.columns.map((column) => columnCheckbox(column)));
    this.fields = fieldsOf(dataset, this.datasets);
    this.labelled = bundle ? { ...dataset, columns: members.flatMap((one) => [one, ...one.columns]) } : dataset;
    this.filters.use(this.fields);
    this.columnsBox.hidden = this.division.element.hidden = Boolean(bundle); // a bundle has all columns, in one file
    if (bundle) this.division.write(null);
    this.useZones(dataset);
    this.parameters.use(dataset.parameters);
    this.encryption.use(dataset);
    this.destination?.use(dataset);
    this.scope.replaceChildren(...dataset.scopes.map((name) => element("option", { value: name }, has(`page.form.scopes.${name}`) ? t(`page.form.scopes.${name}`) : name)));
    this.scopeField.hidden = dataset.scopes.length < 2;
    this.repeat.use(dataset.has_time);
    const formats = [...this.formats.values()].filter(({ name }) => dataset.formats.includes(name));
    const before = this.format.value;
    this.format.replaceChildren(...formats.map(({ name }) => element("option", { value: name }, formatName(name))));
    if (hasOption(this.format, before)) this.format.value = before;
    this.useFormat(options);
  }

  /** Offer the time zones; the first one is that of the dataset, or else that of the browser. */
  useZones(dataset) {
    this.datasetZone = dataset.timezone ?? "UTC";
    this.defaultZone = dataset.timezone ? null : HERE; // the user has not chosen it
    const likely = [...new Set([dataset.timezone ?? HERE, this.datasetZone, HERE, "UTC"])];
    const others = Intl.supportedValuesOf("timeZone").filter((name) => !likely.includes(name));
    this.zone.replaceChildren(
      ...likely.map((name) => element("option", { value: name }, name)),
      element("optgroup", { label: t("page.form.all_zones") }, others.map((name) => element("option", { value: name }, name))),
    );
    this.hasZonedTimes = this.fields.some(({ kind: own }) => own === "timestamptz");
  }

  /** Whether files have the zone of the schedule. */
  get followsSchedule() {
    return this.repeat.active && this.zone.value === this.defaultZone;
  }

  /** The zone of times in the file. */
  fileZone() {
    return this.followsSchedule ? this.repeat.zone.value : this.zone.value;
  }

  /** The zone of days and times in filters. */
  effectiveZone() {
    return this.repeat.active && this.fileZone() === this.datasetZone ? this.repeat.zone.value : this.fileZone();
  }

  useZone(name) {
    if (![...this.zone.options].some((option) => option.value === name)) this.zone.prepend(element("option", { value: name }, name));
    this.zone.value = name;
  }

  useFormat(options) {
    const format = this.formats.get(this.format.value);
    if (!format) return;
    showMessage(this.formatHint, has(`page.formats.${format.name}`) ? t(`page.formats.${format.name}`) : format.description);
    this.options.use(format, this.labelled, options);
    this.changed();
  }

  /** Empty the form for the next export: nothing of the last one can slip into it. */
  reset() {
    this.setEditing(null);
    this.copiedFields = {};
    this.name.value = "";
    this.useDataset({ keep: false });
    this.mail.value = "";
    this.division.write(null);
    this.encryption.write(null);
    this.destination?.write(null);
    this.repeat.reset();
    for (const box of this.form.querySelectorAll("details")) box.open = false;
    this.changed();
  }

  checkAll(on) {
    for (const box of this.boxes()) box.checked = on;
    this.changed();
  }

  boxes() {
    return [...this.columns.querySelectorAll("input")];
  }

  /** Change a schedule from now on, or null: make a new export or schedule. */
  setEditing(schedule) {
    this.editing = schedule;
    this.dataset.disabled = Boolean(schedule);
    this.repeat.keep(Boolean(schedule));
    this.editingBox.hidden = !schedule;
    document.getElementById("new-title").textContent = schedule ? t("page.form.edit_title") : t("page.form.title");
    if (schedule) this.editingText.textContent = t("page.form.editing", { name: schedule.name ?? titleOf(schedule.export_type) });
  }

  /** Fill the form with a schedule, to change it. */
  edit(schedule) {
    this.fill(schedule, { keepsOwner: true });
    if (this.dataset.value !== schedule.export_type) return; // it is gone, which the form says
    this.setEditing(schedule);
    this.changed();
    this.name.focus({ preventScroll: true });
  }

  /** Fill the form with a schedule, to make another one like it. */
  copy(schedule) {
    this.fill(schedule);
    if (schedule.name) this.name.value = t("page.form.copy_of", { name: schedule.name }).slice(0, this.name.maxLength);
    this.changed();
    this.name.focus({ preventScroll: true });
  }

  stopEditing() {
    this.reset();
    showMessage(this.problem, "");
    this.dataset.focus();
  }

  get isBundle() {
    return Boolean(this.datasets.get(this.dataset.value)?.bundle);
  }

  /** Return the request body for the API, without defaults. */
  read() {
    const boxes = this.boxes();
    const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
    const filters = this.filters.read();
    const options = this.options.read();
    const parameters = this.parameters.read();
    const split = this.division.read();
    const encrypt = this.encryption.read();
    const destination = this.destination?.read();
    const scope = this.scope.value || "own";
    const { consistency, webhook } = this.copiedFields;
    const name = this.name.value.trim();
    if (this.hasZonedTimes && this.fileZone() !== this.datasetZone) options.timezone = this.fileZone();
    return {
      ...(name && { name }),
      export_type: this.dataset.value,
      format: this.format.value,
      ...(ticked.length < boxes.length && { columns: ticked }),
      ...(Object.keys(filters).length && { filters: this.isBundle ? nested(filters) : filters }),
      ...(Object.keys(options).length && { options }),
      ...(split && { split }),
      ...(encrypt && { encrypt }),
      ...(destination && { destination }),
      ...(Object.keys(parameters).length && { parameters }),
      ...(scope !== "own" && { scope }),
      ...(consistency && { consistency }),
      ...(webhook && { webhook }),
    };
  }

  /** Return the body that creates a schedule. */
  readSchedule() {
    const addresses = this.addresses();
    const { delay, catch_up } = this.copiedFields;
    return { ...this.read(), ...this.repeat.read(), ...(delay && { delay }), ...(catch_up && { catch_up }), ...(addresses.length && { email_recipients: addresses }) };
  }

  /** Return the body that gives the schedule all values of the form: what the form does not have is removed. */
  readChange() {
    const { export_type: _, ...given } = this.readSchedule();
    return { ...NO_VALUES, ...given };
  }

  /** Show the request of a job or of a schedule, and say whose rows it will have. */
  fill(job, { keepsOwner = false } = {}) {
    const missing = [];
    this.reset();
    if (this.datasets.has(job.export_type)) this.dataset.value = job.export_type;
    else missing.push(job.export_type);
    this.useDataset();
    if (hasOption(this.format, job.format)) this.format.value = job.format;
    else missing.push(job.format);
    this.useFormat();
    const scope = job.scope ?? "own";
    if (hasOption(this.scope, scope)) this.scope.value = scope;
    else if (this.scope.options.length) missing.push(scope);
    if (job.columns) for (const box of this.boxes()) box.checked = job.columns.includes(box.value);
    if (job.schedule) this.repeat.write(job);
    const zone = job.window?.timezone ?? job.options?.timezone ?? this.datasetZone; // of a run: that of its days
    this.useZone(zone);
    if (job.schedule && this.defaultZone) this.defaultZone = zone === job.timezone ? zone : null;
    const wanted = Object.entries((this.isBundle ? flattenFilters(job.filters) : job.filters) ?? {});
    const inZone = wanted.map(([name, tests]) => [name, asDays(tests, this.effectiveZone(), this.filters.kindOf(name))]);
    missing.push(...this.filters.write(Object.fromEntries(inZone)), ...this.parameters.write(job.parameters));
    if (job.destination && !this.destination?.write(job.destination)) missing.push(destinationOf(job.destination));
    if (!keepsOwner) this.copiedFields = job.user_id === this.user.id ? job : { ...job, webhook: null };
    const whose = keepsOwner ? "" : this.keepOwner(job);
    this.name.value = job.name ?? "";
    if (job.schedule) this.mail.value = (job.email_recipients ?? []).join("\n");
    this.options.write(job.options);
    this.division.write(job.split);
    this.encryption.write(job.encrypt);
    this.columnsBox.open = Boolean(job.columns);
    this.changed();
    const all = job.window?.from && t("page.form.without_window", { window: windowText(job.window) });
    const texts = [whose, all, missing.length && t("page.form.left_out", { names: missing.join(", ") })];
    showMessage(this.problem, texts.filter(Boolean).join(". "));
    this.form.parentElement.scrollIntoView({ block: "start" });
    this.dataset.focus({ preventScroll: true });
  }

  /** Keep the rows of another user's own export, if that is possible. Return what the form exports instead. */
  keepOwner(job) {
    if (job.user_id === this.user.id || (job.scope ?? "own") === "all") return "";
    const { owner, columns } = this.datasets.get(this.dataset.value);
    const column = columns.find(({ name }) => name === owner);
    if (!hasOption(this.scope, "all") || (job.scope ?? "own") !== "own" || !column?.operators.includes("eq") || job.filters?.[owner] !== undefined)
      return t("page.form.own_rows", { user: job.user_id });
    this.scope.value = "all";
    this.filters.add(owner, "eq", job.user_id);
    return t("page.form.rows_of_user", { user: job.user_id, column: owner });
  }

  /** What was entered, as far as it is, for `restore`. */
  draft() {
    return { order: this.read(), mail: this.mail.value, repeat: this.repeat.active ? this.repeat.read() : null, kept: this.copiedFields, editing: this.editing };
  }

  restore({ order, mail, repeat, kept, editing }) {
    this.fill({ ...order, user_id: this.user.id });
    this.copiedFields = kept ?? {};
    this.mail.value = mail;
    this.mailBox.open = Boolean(mail);
    if (repeat) this.repeat.write(repeat);
    if (editing) this.setEditing(editing);
    this.changed();
  }

  addresses() {
    return [...new Set(this.mail.value.split(/[;\n]+/).flatMap(addressesIn))];
  }

  /** Say which address cannot be one, at the field. */
  checkAddresses() {
    const wrong = this.addresses().find((address) => !/^[^\s@]+@[^\s@]+$|^\w+:/.test(address));
    this.mail.setCustomValidity(wrong ? t("page.form.bad_address", { address: wrong }) : "");
  }

  /** Show in the closed parts of the form what is in them. */
  summarize() {
    this.options.summarize();
    const count = this.addresses().length;
    this.mailSummary.textContent = count ? t("page.form.addresses", { count }) : t("page.form.no_addresses");
    if (this.editing) this.submit.textContent = t("page.form.save");
    else if (this.repeat.active) this.submit.textContent = count ? t("page.form.schedule_and_mail", { count }) : t("page.form.schedule");
    else this.submit.textContent = count ? t("page.form.export_and_mail", { count }) : t("page.form.export");
  }

  changed() {
    this.changes += 1;
    this.key = null;
    const boxes = this.boxes();
    const ticked = boxes.filter((box) => box.checked).length;
    this.columnsSummary.textContent = ticked === boxes.length ? t("page.form.all_columns", { count: ticked }) : t("page.form.some_columns", { ticked, count: boxes.length });
    boxes[0]?.setCustomValidity(ticked ? "" : t("page.form.no_column"));
    this.filters.check();
    this.checkAddresses();
    this.filters.mark(null);
    this.parameters.mark(null);
    this.zoneField.hidden = !this.hasZonedTimes || this.followsSchedule;
    const ofSchedule = this.repeat.active && this.effectiveZone() === this.repeat.zone.value;
    this.zoneField.querySelector(".hint").textContent = ofSchedule ? t("page.form.zone_of_file") : t("page.form.zone_hint");
    this.repeat.showZone(this.followsSchedule && this.hasZonedTimes ? "zone_hint" : ofSchedule ? "zone_of_filters" : null);
    this.summarize();
    this.setRefusal("");
    clearTimeout(this.timer);
    this.asking?.abort();
    for (const control of this.form.elements) explain(control);
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  /** Ask for the estimate of what the form has, once for each change. Return whether there was an answer, or an error. */
  ask() {
    clearTimeout(this.timer);
    if (this.asked?.changes !== this.changes) this.asked = { changes: this.changes, answer: this.requestEstimate() };
    return this.asked.answer;
  }

  /** Return where an estimate is asked for, and with what. */
  estimateCall() {
    const { email_recipients: _, ...rows } = this.editing ? this.readChange() : this.readSchedule();
    if (this.editing) return [`exports/schedules/${this.editing.id}:estimate`, rows];
    if (this.repeat.active) return ["exports/schedules:estimate", rows];
    return ["exports/jobs:estimate", this.read()];
  }

  async requestEstimate() {
    this.setRefusal("");
    this.unknown = false;
    if (!this.form.checkValidity() || this.datasets.get(this.dataset.value)?.error) {
      this.showEstimate("");
      return true;
    }
    const asking = (this.asking = new AbortController());
    try {
      const [path, body] = this.estimateCall();
      const answer = await call("POST", path, { body, signal: asking.signal });
      const precision = answer.exact ? "exact" : answer.at_least ? "at_least" : "about";
      const shown = t(`page.form.${precision}_rows`, { rows: rows(answer.rows) });
      const whole = answer.bytes === null ? shown : t("page.form.size", { rows: shown, size: size(answer.bytes) });
      const amount = answer.window ? t("page.form.of_window", { estimate: whole, window: windowText(answer.window) }) : whole;
      const empty = answer.exact && !answer.rows && !this.repeat.active;
      const reason = answer.fits ? (empty ? t("page.form.no_rows") : "") : refusal(answer);
      this.showEstimate(reason ? t("page.form.estimate_and_reason", { estimate: amount, reason }) : amount, Boolean(reason));
      this.setRefusal(!answer.fits && (answer.exact || answer.at_least) ? reason : "");
    } catch (failure) {
      if (failure.name === "AbortError") {
        if (!asking.signal.aborted) this.asked = null; // the session has ended, and the form waits for the next one
        return false;
      }
      this.unknown = failure.away;
      if (failure.away) this.asked = null; // it is asked for again when the service is back
      this.markField(failure);
      this.showEstimate(failure.message, true);
      if (failure.away) clearOnRecovery(this.estimate, this.estimate.textContent);
      if (REFUSED.has(failure.status)) this.setRefusal(failure.message);
    }
    return true;
  }

  /** Refuse to send what cannot work, with the reason; an empty text allows it. */
  setRefusal(reason) {
    this.refusal = reason;
    this.submit.ariaDisabled = reason ? "true" : null; // not disabled: that would take away the focus
  }

  showEstimate(text, wrong = false) {
    this.estimate.textContent = sentence(text);
    this.estimate.classList.toggle("wrong", wrong);
  }

  /** Mark the filter, the parameter or the address that an error names. */
  markField(failure) {
    const [, index] = /^(?:email_)?recipients\.(\d+)/.exec(failure.field ?? "") ?? [];
    if (index) {
      failure.message = t("page.form.bad_address", { address: this.addresses()[index] });
      this.mailBox.open = true;
      this.mail.setCustomValidity(failure.message);
    }
    const form = this.isBundle ? /^(filters|parameters)\.([^.]+(?:\.[^.]+)?)/ : /^(filters|parameters)\.([^.]+)/;
    const [, part, name] = form.exec(failure.field ?? "") ?? [];
    if (part) this[part].mark(name);
    const column = part === "filters" && this.fields.find((own) => own.name === name);
    if (column) failure.message = failure.message.replace(`: ${name}`, `: ${labelOf(column)}`);
  }

  send() {
    for (const box of [this.columnsBox, this.options.element, this.division.element, this.encryption.element, this.mailBox]) if (box.querySelector(":invalid")) box.open = true;
    if (!this.form.reportValidity()) return;
    if (this.refusal || this.datasets.get(this.dataset.value)?.error) {
      showMessage(this.problem, this.refusal || t("page.form.dataset_not_available"));
      return;
    }
    const { changes } = this;
    const done = () => changes === this.changes && this.reset(); // what was entered since then stays
    busy(this.submit, this.problem, async () => {
      this.form.inert = true; // what is typed now would be lost when the form is emptied
      try {
        if (!(await this.ask()) || changes !== this.changes) return; // the form was changed meanwhile
        if (this.refusal) throw new Error(this.refusal);
        this.key ??= unique(); // sent again without a change it is the same request
        const key = { "idempotency-key": this.key };
        if (this.editing) {
          const { id } = await call("PATCH", `exports/schedules/${this.editing.id}`, { body: this.readChange() });
          done();
          await this.callbacks.onScheduled(id);
        } else if (this.repeat.active) {
          const { id } = await call("POST", "exports/schedules", { body: this.readSchedule(), headers: key });
          done();
          await this.callbacks.onScheduled(id);
        } else {
          const addresses = this.addresses();
          const body = { ...this.read(), ...(addresses.length && { recipients: addresses }) };
          const headers = { Prefer: `wait=${WAIT}`, ...key };
          const job = await call("POST", "exports/jobs", { body, headers });
          done();
          await this.callbacks.onRequested(job.export_job_id, { download: Boolean(job.download_url) });
        }
      } catch (failure) {
        this.markField(failure);
        this.form.inert = false;
        focusIfIdle(this.mail.validity.customError ? this.mail : this.submit);
        throw failure;
      } finally {
        this.form.inert = false;
      }
    });
  }
}

/** Give a control that is not valid a text of this page, in the place of the browser's. */
function explain(control) {
  if (control.explained && control.validationMessage === control.explained) control.setCustomValidity("");
  control.explained = "";
  const { validity } = control;
  if (!control.willValidate || validity.valid || validity.customError) return;
  if (validity.valueMissing) control.explained = t("page.form.missing");
  else if (validity.rangeUnderflow || validity.rangeOverflow) control.explained = control.max ? t("page.form.between", { least: control.min, most: control.max }) : t("page.form.at_least", { least: control.min });
  else control.explained = control.title ? t("page.form.expected", { what: control.title }) : t("page.form.not_valid");
  control.setCustomValidity(control.explained);
}

/** Why an export is too large. The service's own words are English. */
function refusal({ reason, row_limit: limit }) {
  return language === "en" || !limit ? reason : t("page.form.too_many_rows", { rows: rows(limit) });
}

/** The addresses in a text; with mail programs' names before them, such as in `Lovelace, Ada <ada@example.com>`. */
function addressesIn(text) {
  const named = [...text.matchAll(/<([^<>\s]+)>/g)].map(([, address]) => address);
  const words = text.replace(/<[^<>\s]+>/g, " ").split(/[\s,]+/).filter(Boolean);
  return named.length ? [...named, ...words.filter((word) => word.includes("@"))] : words;
}

const hasOption = (select, value) => [...select.options].some((option) => option.value === value);

/** A box to tick for a column, with its label, or else its name. */
function columnCheckbox({ masked, ...column }) {
  const label = labelOf(column);
  const facts = [label !== column.name && column.name, masked && t("page.form.masked")];
  return checkbox(label, { value: column.name, checked: true }, facts.filter(Boolean).join(" · "));
}
