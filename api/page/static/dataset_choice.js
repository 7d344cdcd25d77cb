// The dataset of an export: the list of the form, and what the form says about the chosen one.

import { call } from "./api.js";
import { element, hasOption, showMessage } from "./dom.js";
import { fieldsOf, labelOf, membersOf, rememberLabels } from "./labels.js";
import { t } from "./messages.js";
import { rows } from "./words.js";

// Milliseconds until the datasets are read again while one of them cannot be exported
const FIRST_PAUSE = 15_000;
const LONGEST_PAUSE = 300_000;

export class DatasetChoice {
  /** `onChosen()` is called when the user has chosen a dataset, `onRead(catalogue)` when the datasets were read again. */
  constructor({ onChosen, onRead }) {
    this.onRead = onRead;
    this.select = element("select", { onchange: onChosen });
    this.about = element("p", { class: "hint" });
    this.pause = FIRST_PAUSE;
  }

  /** The chosen dataset, or undefined if there is none. */
  get current() {
    return this.datasets.get(this.select.value);
  }

  get isAvailable() {
    return !this.current?.error;
  }

  get isBundle() {
    return Boolean(this.current?.bundle);
  }

  /** The chosen dataset with everything that has labels: a bundle with the datasets that it has, and their columns. */
  get labelled() {
    const { current } = this;
    return current.bundle ? { ...current, columns: this.members.flatMap((one) => [one, ...one.columns]) } : current;
  }

  /** The datasets of the chosen bundle. */
  get members() {
    return this.isBundle ? membersOf(this.current.bundle, this.datasets) : [];
  }

  /** The columns that filters can name. */
  get fields() {
    return fieldsOf(this.current, this.datasets);
  }

  /** Offer the datasets of an answer of GET /exports/datasets. They are read again until each of them can be exported. */
  offer({ datasets, formats, destinations = [] }) {
    clearTimeout(this.timer);
    if (datasets.some(({ error }) => error)) this.scheduleRetry();
    const text = JSON.stringify([datasets, formats, destinations]);
    if (text === this.offered) return; // a list that is open stays
    this.offered = text;
    const before = this.select.value;
    this.datasets = new Map(datasets.map((dataset) => [dataset.name, dataset]));
    this.formats = new Map(formats.map((format) => [format.name, format]));
    const available = datasets.filter(({ error }) => !error);
    const unavailable = datasets.filter(({ error }) => error);
    rememberLabels(datasets, destinations);
    this.select.replaceChildren(
      ...available.map((dataset) => element("option", { value: dataset.name }, labelOf(dataset))),
      ...unavailable.map((dataset) => element("option", { value: dataset.name, disabled: available.length > 0 }, t("page.form.not_available", { dataset: labelOf(dataset) }))),
    );
    if (hasOption(this.select, before)) this.select.value = before;
    if (!datasets.length) showMessage(this.about, t("page.form.no_datasets"));
  }

  scheduleRetry() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.retry(), this.pause);
  }

  async retry() {
    if (!this.select.isConnected) return; // the user has signed out
    if (document.hidden) {
      this.scheduleRetry();
      return;
    }
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    try {
      this.onRead(await call("GET", "exports/datasets", { attempts: 1 }));
    } catch (failure) {
      if (failure.away || failure.status >= 500) this.scheduleRetry();
    }
  }

  /** Say what the chosen dataset is, or that it cannot be exported. */
  describe() {
    const { description, bundle, max_rows: limit } = this.current;
    const parts = bundle && t("page.form.bundle", { datasets: this.members.map((one) => labelOf(one)).join(", ") });
    const facts = [description, parts, limit && t("page.form.row_limit", { rows: rows(limit) })];
    showMessage(this.about, this.isAvailable ? facts.filter(Boolean).join(" · ") : t("page.form.dataset_not_available"));
    this.about.classList.toggle("wrong", !this.isAvailable);
  }
}
