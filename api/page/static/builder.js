// The form that builds an export, or a schedule of them.

import { call, unique } from "./api.js";
import { DatasetChoice } from "./dataset_choice.js";
import { busy, button, element, errorMessage, explainInvalid, field, focusIfIdle, hasOption, showMessage } from "./dom.js";
import { Encryption } from "./encryption.js";
import { EstimateLine } from "./estimate.js";
import { Division } from "./files.js";
import { asDays, flattenFilters, windowText } from "./filter_texts.js";
import { Filters } from "./filters.js";
import { ColumnChoice, Recipients, ZoneChoice } from "./form_fields.js";
import { destinationOf, labelOf, titleOf } from "./labels.js";
import { has, t } from "./messages.js";
import { Options } from "./options.js";
import { Parameters } from "./parameters.js";
import { Repeat } from "./repeat.js";
import { formatName } from "./words.js";

const WAIT = 3; // seconds that a request waits for a small export, whose file is downloaded at once
/** What a schedule can have and the form perhaps does not. */
const NO_VALUES = { name: null, filters: null, columns: null, options: null, split: null, encrypt: null, parameters: null, scope: null, destination: null, time_of_day: null, day: null, email_recipients: null };

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
    this.editing = null;
    this.copiedFields = {}; // what a copy takes over and the form does not have
    const changed = () => this.changed();

    this.editingText = element("span");
    this.editingBox = element("p", { class: "editing", role: "status", hidden: true }, this.editingText, button(t("page.form.stop_editing"), () => this.stopEditing()));
    this.name = element("input", { maxLength: 200, autocomplete: "off", placeholder: t("page.form.name_hint") });
    this.dataset = new DatasetChoice({ onChosen: () => this.useDataset(), onRead: (catalogue) => this.updateCatalogue(catalogue) });
    this.format = element("select", { onchange: () => this.useFormat() });
    this.formatHint = element("p", { class: "hint" });
    this.columns = new ColumnChoice(changed);
    this.repeat = new Repeat(changed);
    this.zone = new ZoneChoice(this.repeat);
    const filterZone = () => this.zone.filterZone;
    this.filters = new Filters(changed, filterZone);
    this.parameters = new Parameters(filterZone);
    this.scope = element("select");
    this.scopeField = field(t("page.form.scope"), this.scope);
    this.options = new Options();
    this.division = new Division();
    this.encryption = new Encryption();
    this.destination = destination;
    this.recipients = new Recipients();
    this.estimate = new EstimateLine(this);
    this.problem = errorMessage();
    this.submit = element("button", { class: "primary" });
    form.replaceChildren(
      this.editingBox,
      element("div", { class: "pair" }, field(t("page.form.dataset"), this.dataset.select), field(t("page.form.format"), this.format)),
      this.dataset.about,
      this.formatHint,
      field(t("page.form.name"), this.name),
      this.scopeField,
      this.parameters.element,
      element("div", { class: "part" }, element("h3", {}, t("page.filters.title")), this.filters.element, this.zone.element),
      this.columns.element,
      this.options.element,
      this.division.element,
      this.encryption.element,
      destination?.element ?? "",
      this.repeat.element,
      this.recipients.element,
      element("div", { class: "send" }, this.estimate.element, this.problem, this.submit),
    );
    form.oninput = changed;
    form.onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
  }

  /** Set the datasets and formats that GET /exports/datasets returns. */
  setCatalogue(catalogue) {
    this.dataset.offer(catalogue);
    this.useDataset();
  }

  /** Set them again, perhaps in another session. What was entered stays; a dataset that could not be exported begins. */
  updateCatalogue(catalogue) {
    const { select, isAvailable: wasAvailable } = this.dataset;
    const before = select.value;
    this.dataset.offer(catalogue);
    const isRepaired = !wasAvailable && this.dataset.isAvailable;
    if ((select.value !== before || isRepaired) && !this.editing) this.useDataset();
    this.estimate.ask();
  }

  useDataset(options) {
    const { current: dataset, isBundle } = this.dataset;
    if (!dataset) return;
    this.dataset.describe();
    this.columns.use(dataset.columns);
    this.fields = this.dataset.fields;
    this.filters.use(this.fields);
    this.columns.element.hidden = this.division.element.hidden = isBundle; // a bundle has all columns, in one file
    if (isBundle) this.division.write(null);
    this.zone.use(dataset, this.fields);
    this.parameters.use(dataset.parameters);
    this.encryption.use(dataset);
    this.destination?.use(dataset);
    this.scope.replaceChildren(...dataset.scopes.map((name) => element("option", { value: name }, has(`page.form.scopes.${name}`) ? t(`page.form.scopes.${name}`) : name)));
    this.scopeField.hidden = dataset.scopes.length < 2;
    this.repeat.use(dataset.has_time);
    const formats = [...this.dataset.formats.values()].filter(({ name }) => dataset.formats.includes(name));
    const before = this.format.value;
    this.format.replaceChildren(...formats.map(({ name }) => element("option", { value: name }, formatName(name))));
    if (hasOption(this.format, before)) this.format.value = before;
    this.useFormat(options);
  }

  useFormat(options) {
    const format = this.dataset.formats.get(this.format.value);
    if (!format) return;
    showMessage(this.formatHint, has(`page.formats.${format.name}`) ? t(`page.formats.${format.name}`) : format.description);
    this.options.use(format, this.dataset.labelled, options);
    this.changed();
  }

  /** Empty the form for the next export: nothing of the last one can slip into it. */
  reset() {
    this.setEditing(null);
    this.copiedFields = {};
    this.name.value = "";
    this.useDataset({ keep: false });
    this.recipients.write([]);
    this.division.write(null);
    this.encryption.write(null);
    this.destination?.write(null);
    this.repeat.reset();
    for (const box of this.form.querySelectorAll("details")) box.open = false;
    this.changed();
  }

  /** Change a schedule from now on, or null: make a new export or schedule. */
  setEditing(schedule) {
    this.editing = schedule;
    this.dataset.select.disabled = Boolean(schedule);
    this.repeat.keep(Boolean(schedule));
    this.editingBox.hidden = !schedule;
    document.getElementById("new-title").textContent = schedule ? t("page.form.edit_title") : t("page.form.title");
    if (schedule) this.editingText.textContent = t("page.form.editing", { name: schedule.name ?? titleOf(schedule.export_type) });
  }

  /** Fill the form with a schedule, to change it. */
  edit(schedule) {
    this.fill(schedule, { keepsOwner: true });
    if (this.dataset.select.value !== schedule.export_type) return; // it is gone, which the form says
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
    this.dataset.select.focus();
  }

  /** Return the request body for the API, without defaults. */
  read() {
    const columns = this.columns.read();
    const filters = this.filters.read();
    const options = this.options.read();
    const parameters = this.parameters.read();
    const split = this.division.read();
    const encrypt = this.encryption.read();
    const destination = this.destination?.read();
    const scope = this.scope.value || "own";
    const { consistency, webhook } = this.copiedFields;
    const name = this.name.value.trim();
    const timezone = this.zone.read();
    if (timezone) options.timezone = timezone;
    return {
      ...(name && { name }),
      export_type: this.dataset.select.value,
      format: this.format.value,
      ...(columns && { columns }),
      ...(Object.keys(filters).length && { filters: this.dataset.isBundle ? nested(filters) : filters }),
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
    const addresses = this.recipients.read();
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
    this.reset();
    const missing = this.fillFields(job);
    if (!keepsOwner) this.copiedFields = job.user_id === this.user.id ? job : { ...job, webhook: null };
    const owner = keepsOwner ? "" : this.keepOwner(job);
    this.changed();
    const all = job.window?.from && t("page.form.without_window", { window: windowText(job.window) });
    const texts = [owner, all, missing.length && t("page.form.left_out", { names: missing.join(", ") })];
    showMessage(this.problem, texts.filter(Boolean).join(". "));
    this.form.parentElement.scrollIntoView({ block: "start" });
    this.dataset.select.focus({ preventScroll: true });
  }

  /** Show what the form can show of a request. Return the names of the rest. */
  fillFields(job) {
    const missing = chooseOption(this.dataset.select, job.export_type);
    this.useDataset();
    missing.push(...chooseOption(this.format, job.format));
    this.useFormat();
    const scopes = chooseOption(this.scope, job.scope ?? "own");
    if (this.scope.options.length) missing.push(...scopes);
    if (job.schedule) {
      this.repeat.write(job);
      this.recipients.write(job.email_recipients ?? []);
    }
    this.zone.write(job);
    missing.push(...this.fillFilters(job.filters ?? {}), ...this.parameters.write(job.parameters));
    if (job.destination && !this.destination?.write(job.destination)) missing.push(destinationOf(job.destination));
    this.columns.write(job.columns);
    this.name.value = job.name ?? "";
    this.options.write(job.options);
    this.division.write(job.split);
    this.encryption.write(job.encrypt);
    return missing;
  }

  /** Show filters, with days for times where these are whole days. Return the names of those that cannot be shown. */
  fillFilters(filters) {
    const tests = Object.entries(this.dataset.isBundle ? flattenFilters(filters) : filters);
    const shown = tests.map(([name, own]) => [name, asDays(own, this.zone.filterZone, this.filters.kindOf(name))]);
    return this.filters.write(Object.fromEntries(shown));
  }

  /** Keep the rows of another user's own export, if that is possible. Return what the form exports instead. */
  keepOwner(job) {
    if (job.user_id === this.user.id || (job.scope ?? "own") === "all") return "";
    const { owner, columns } = this.dataset.current;
    const column = columns.find(({ name }) => name === owner);
    if (!hasOption(this.scope, "all") || (job.scope ?? "own") !== "own" || !column?.operators.includes("eq") || job.filters?.[owner] !== undefined)
      return t("page.form.own_rows", { user: job.user_id });
    this.scope.value = "all";
    this.filters.add(owner, "eq", job.user_id);
    return t("page.form.rows_of_user", { user: job.user_id, column: owner });
  }

  /** What was entered, as far as it is, for `restore`. */
  draft() {
    return { order: this.read(), mail: this.recipients.input.value, repeat: this.repeat.active ? this.repeat.read() : null, kept: this.copiedFields, editing: this.editing };
  }

  restore({ order, mail, repeat, kept, editing }) {
    this.fill({ ...order, user_id: this.user.id });
    this.copiedFields = kept ?? {};
    this.recipients.input.value = mail;
    this.recipients.element.open = Boolean(mail);
    if (repeat) this.repeat.write(repeat);
    if (editing) this.setEditing(editing);
    this.changed();
  }

  /** Show in the closed parts of the form what is in them. */
  summarize() {
    this.options.summarize();
    this.columns.summarize();
    this.recipients.summarize();
    const count = this.recipients.read().length;
    if (this.editing) this.submit.textContent = t("page.form.save");
    else if (this.repeat.active) this.submit.textContent = count ? t("page.form.schedule_and_mail", { count }) : t("page.form.schedule");
    else this.submit.textContent = count ? t("page.form.export_and_mail", { count }) : t("page.form.export");
  }

  changed() {
    this.key = null;
    this.filters.check();
    this.recipients.check();
    this.filters.mark(null);
    this.parameters.mark(null);
    this.zone.show();
    this.summarize();
    for (const control of this.form.elements) explainInvalid(control);
    this.estimate.restart();
  }

  /** Whether the form can be sent, as far as the page knows. */
  get isComplete() {
    return this.form.checkValidity() && this.dataset.isAvailable;
  }

  /** Return where an estimate is asked for, and with what. */
  estimateCall() {
    const { email_recipients: _, ...rows } = this.editing ? this.readChange() : this.readSchedule();
    if (this.editing) return [`exports/schedules/${this.editing.id}:estimate`, rows];
    if (this.repeat.active) return ["exports/schedules:estimate", rows];
    return ["exports/jobs:estimate", this.read()];
  }

  /** Mark the filter, the parameter or the address that an error names. */
  markField(failure) {
    this.recipients.mark(failure);
    const form = this.dataset.isBundle ? /^(filters|parameters)\.([^.]+(?:\.[^.]+)?)/ : /^(filters|parameters)\.([^.]+)/;
    const [, part, name] = form.exec(failure.field ?? "") ?? [];
    if (part) this[part].mark(name);
    const column = part === "filters" && this.fields.find((own) => own.name === name);
    if (column) failure.message = failure.message.replace(`: ${name}`, `: ${labelOf(column)}`);
  }

  send() {
    for (const box of [this.columns, this.options, this.division, this.encryption, this.recipients].map((part) => part.element)) if (box.querySelector(":invalid")) box.open = true;
    if (!this.form.reportValidity()) return;
    if (this.estimate.refusal || !this.dataset.isAvailable) {
      showMessage(this.problem, this.estimate.refusal || t("page.form.dataset_not_available"));
      return;
    }
    const { changes } = this.estimate;
    const done = () => changes === this.estimate.changes && this.reset(); // what was entered since then stays
    busy(this.submit, this.problem, async () => {
      this.form.inert = true; // what is typed now would be lost when the form is emptied
      try {
        if (!(await this.estimate.ask()) || changes !== this.estimate.changes) return; // the form was changed meanwhile
        if (this.estimate.refusal) throw new Error(this.estimate.refusal);
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
          const addresses = this.recipients.read();
          const body = { ...this.read(), ...(addresses.length && { recipients: addresses }) };
          const headers = { Prefer: `wait=${WAIT}`, ...key };
          const job = await call("POST", "exports/jobs", { body, headers });
          done();
          await this.callbacks.onRequested(job.export_job_id, { download: Boolean(job.download_url) });
        }
      } catch (failure) {
        this.markField(failure);
        this.form.inert = false;
        focusIfIdle(this.recipients.input.validity.customError ? this.recipients.input : this.submit);
        throw failure;
      } finally {
        this.form.inert = false;
      }
    });
  }
}

/** Choose a value of a list. Return what the list does not have. */
function chooseOption(select, value) {
  if (!hasOption(select, value)) return [value];
  select.value = value;
  return [];
}
