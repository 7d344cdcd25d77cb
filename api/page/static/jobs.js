// The list of exports: live, newest first.

import { call } from "./api.js";
import { busy, button, byId, canMoveFocus, choice, element, nameButtons, runAgainIfRequested, showButton, showMessage, showRecoverableError } from "./dom.js";
import { JobCard } from "./job_card.js";
import { JobStream } from "./job_stream.js";
import { labelOf } from "./labels.js";
import { t } from "./messages.js";
import { exactTime, status, today } from "./words.js";

const TYPING = 300; // milliseconds without a key, after which a search begins
const AT_ONCE = 10; // unfinished jobs that are read one by one after the list
const MISSING = "not_found"; // the code for a job that does not exist
const MAX_CARDS = 200; // besides those that the user asked for
const STATES = ["pending", "processing", "completed", "failed", "cancelled", "expired"];

export class Jobs {
  /** `again(job)` fills the form with a job's request, `schedule(id)` shows a schedule. */
  constructor(user, { again, schedule, datasets }) {
    this.user = user;
    Object.assign(this, { again, schedule });
    this.cards = new Map();
    this.list = byId("job-list");
    this.problem = byId("jobs-problem");
    this.older = byId("older");
    this.older.onclick = () => busy(this.older, this.problem, () => this.more());
    this.stream = new JobStream(this);
    this.abortController = new AbortController();
    this.repeatRefresh = new Map();
    this.filterVersion = 0; // the number of changes of the filters
    this.listedVersion = -1; // the version of the filters that the list has
    this.maxCards = MAX_CARDS;
    this.failed = null; // why the list, or a job, was not read
    this.words = element("input", { type: "search", maxLength: 200, placeholder: t("page.jobs.search_hint"), "aria-label": t("page.jobs.search"), oninput: () => this.scheduleSearch() });
    this.state = choice([["", t("page.jobs.any_status")], ...STATES.map((name) => [name, status(name)])], { "aria-label": t("page.jobs.status"), onchange: () => this.search() });
    this.dataset = choice([["", t("page.jobs.any_dataset")], ...datasets.map((dataset) => [dataset.name, labelOf(dataset)])], { "aria-label": t("page.jobs.dataset"), onchange: () => this.search() });
    this.nothing = element("p", { class: "empty", role: "status", hidden: true }, t("page.jobs.not_found"), " ", button(t("page.jobs.show_all"), () => this.showAll()));
    byId("job-search").replaceChildren(element("div", { class: "search" }, this.words, this.state, this.dataset), this.nothing);
  }

  /** The filters of the list, as parameters of the call. */
  get filters() {
    const chosen = { q: this.words.value.trim(), status: this.state.value, export_type: this.dataset.value };
    return Object.fromEntries(Object.entries(chosen).filter(([, value]) => value));
  }

  /** Whether a job is in the list by its filters. Words are compared by the service only. */
  fits(job) {
    const { q, status: state, export_type: dataset } = this.filters;
    return !q && (!state || job.status === state) && (!dataset || job.export_type === dataset);
  }

  scheduleSearch() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.search(), TYPING);
  }

  /** Read the list anew, with the filters. */
  search() {
    clearTimeout(this.typing);
    this.filterVersion++;
    return runAgainIfRequested(this.list, this.problem, () => this.more());
  }

  showAll() {
    this.words.value = this.state.value = this.dataset.value = "";
    this.words.focus();
    return this.search();
  }

  /** Show the newest page and follow all changes until `stop`. */
  async start() {
    showMessage(this.problem, "");
    await this.more().catch((failure) => showRecoverableError(this.problem, failure));
    if (this.abortController.signal.aborted) return;
    this.stream.start();
    this.clock = setInterval(() => this.updateTimes(), 1000);
    this.day = today();
  }

  stop() {
    this.abortController.abort();
    clearInterval(this.clock);
    clearTimeout(this.typing);
    this.stream.stop();
    this.list.replaceChildren();
  }

  /** Whether the list was read with the filters that are set now. */
  get isCurrent() {
    return this.listedVersion === this.filterVersion;
  }

  /** Where the next page begins; null for the first one, which is also read after a change of the filters. */
  get nextCursor() {
    return this.isCurrent ? this.cursor : null;
  }

  /** Read and show the next page, or the first one. */
  async more(options) {
    const { filterVersion, nextCursor } = this;
    const { jobs, next_cursor: cursor } = await this.read({ cursor: nextCursor }, options);
    if (filterVersion !== this.filterVersion || nextCursor !== this.nextCursor) return; // overtaken
    if (nextCursor) this.maxCards += jobs.length;
    else if (filterVersion) {
      const read = new Set(jobs.map((job) => job.export_job_id));
      this.maxCards = MAX_CARDS;
      for (const id of this.cards.keys()) if (!read.has(id)) this.removeCard(id);
    }
    this.listedVersion = filterVersion;
    const next = jobs.find((job) => !this.cards.has(job.export_job_id));
    for (const job of jobs) this.showJob(job);
    this.cursor = cursor;
    this.showEmptyState(next && this.showJob(next));
  }

  /** Read the newest jobs, and some of those that are shown as unfinished and are not among them. */
  async newest(options) {
    const { filterVersion } = this;
    if (this.hasGrown) this.filterVersion++;
    if (!this.isCurrent) return this.more(options);
    const { jobs } = await this.read({}, options);
    if (filterVersion !== this.filterVersion) return;
    for (const job of jobs) this.showJob(job);
    await this.refreshUnfinished(new Set(jobs.map((job) => job.export_job_id)));
  }

  /** Read some of the jobs that are shown as unfinished and are not among `read`. */
  async refreshUnfinished(read = new Set()) {
    const { filterVersion } = this;
    const others = this.unfinished.filter(({ job }) => !read.has(job.export_job_id)).sort((one, other) => one.seen - other.seen);
    for (const { job } of others.slice(0, AT_ONCE)) if (filterVersion === this.filterVersion) await this.refresh(job.export_job_id);
  }

  /** Whether there are too many cards. A list with the focus is not shortened. */
  get hasGrown() {
    return this.cards.size > this.maxCards && !this.list.contains(document.activeElement);
  }

  /** Read a page of the list. */
  async read({ cursor }, options) {
    const { filterVersion } = this;
    const parameters = new URLSearchParams({ limit: 10, ...this.filters, ...(cursor && { cursor }) });
    try {
      const page = await call("GET", `exports/jobs?${parameters}`, { signal: this.abortController.signal, ...options });
      if (filterVersion === this.filterVersion) this.failed = null;
      return page;
    } catch (failure) {
      if (filterVersion === this.filterVersion && (!cursor || failure.passes)) this.failed = failure;
      throw failure;
    }
  }

  get unfinished() {
    return [...this.cards.values()].filter((card) => card.isUnfinished);
  }

  /** Show what has changed while the service did not answer, or was not listened to. */
  async renew() {
    try {
      await this.newest();
      if (!this.failed) showMessage(this.problem, "");
    } catch (failure) {
      showRecoverableError(this.problem, failure);
    }
  }

  /** `next`: the first card of a page that was just read. */
  showEmptyState(next) {
    const filtered = Object.keys(this.filters).length > 0;
    showButton(this.older, this.nextCursor, next?.element);
    this.nothing.hidden = !filtered || this.cards.size > 0;
    byId("no-jobs").hidden = filtered || this.cards.size > 0;
  }

  /** Show a job if it fits the filters, or is shown already. */
  addIfListed(job) {
    if (this.cards.has(job.export_job_id) || this.fits(job)) this.showJob(job);
  }

  /** Read a job, show it whatever the filters are, and return its card. `focus()`: whether it takes the focus. */
  async find(id, focus = canMoveFocus) {
    try {
      const card = this.showJob(await call("GET", `exports/jobs/${id}`, { signal: this.abortController.signal }));
      if (focus()) card.focus();
      return card;
    } catch (failure) {
      if (failure.name !== "AbortError") throw failure.code === MISSING ? new Error(t("page.jobs.no_such")) : failure;
    }
  }

  showJob(job) {
    const known = this.cards.get(job.export_job_id);
    if (known) {
      known.show(job);
      return known;
    }
    const card = new JobCard(job, this);
    nameButtons(card.element, exactTime(job.created_at));
    const older = [...this.cards.values()].filter((other) => other.job.created_at < job.created_at);
    const next = older.reduce((one, other) => (one && one.job.created_at > other.job.created_at ? one : other), null);
    this.list.insertBefore(card.element, next && next.element);
    this.cards.set(job.export_job_id, card);
    this.showEmptyState();
    return card;
  }

  removeCard(id) {
    this.cards.get(id)?.element.remove();
    this.cards.delete(id);
    this.showEmptyState();
  }

  /** Read one job and show it; read it again if that was requested in the meantime. */
  async refresh(id) {
    if (this.repeatRefresh.has(id)) {
      this.repeatRefresh.set(id, true);
      return;
    }
    this.repeatRefresh.set(id, false);
    try {
      return this.showJob(await call("GET", `exports/jobs/${id}`, { signal: this.abortController.signal }));
    } catch (failure) {
      if (failure.code === MISSING) this.removeCard(id);
      else {
        if (failure.passes) this.failed ??= failure;
        showRecoverableError(this.problem, failure);
      }
    } finally {
      const again = this.repeatRefresh.get(id);
      this.repeatRefresh.delete(id);
      if (again) this.refresh(id);
    }
  }

  updateTimes() {
    if (this.day !== today()) for (const card of this.cards.values()) card.showAbout();
    this.day = today();
    for (const card of this.cards.values()) if (card.job.status === "processing") card.showFacts();
  }
}
