// The list of exports: live, newest first.

import { Failure, call, events, parse, post } from "./api.js";
import { isAway } from "./connection.js";
import { busy, button, byId, canMoveFocus, choice, confirmButton, element, errorMessage, nameButtons, runAgainIfRequested, showButton, showMessage, showRecoverableError } from "./dom.js";
import { Password } from "./encryption.js";
import { FileList, download, several } from "./files.js";
import { filtersText } from "./filter_texts.js";
import { destinationModule, labelOf, titleOf } from "./labels.js";
import { problemText, t } from "./messages.js";
import { PAGE, now } from "./session.js";
import { date, duration, exactTime, formatName, moment, rows, scopeText, sentence, size, status, today, warnings } from "./words.js";

// Milliseconds
const POLL = 1500; // between questions where events do not come
const LONGEST_WAIT = 10000; // between two attempts to listen
const LONGEST_REST = 60_000; // between two attempts to read a list that has failed
const READING = 20_000; // for which the text about a copied link is shown
const TYPING = 300; // without a key, after which a search begins

const SELDOM = 10; // of the questions one is asked while nothing runs
const AT_ONCE = 10; // unfinished jobs that are read one by one after a question
const MAX_CARDS = 200; // besides those that the user asked for

const UNFINISHED = new Set(["pending", "processing"]);
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
    this.live = false;
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
    this.listen();
    this.poll();
    this.clock = setInterval(() => this.updateTimes(), 1000);
    this.day = today();
  }

  stop() {
    this.abortController.abort();
    clearInterval(this.clock);
    clearTimeout(this.next);
    byId("live").textContent = "";
    clearTimeout(this.typing);
    this.list.replaceChildren();
  }

  /** Where the list goes on. It begins anew, with null, while it is not that of the filters. */
  get nextCursor() {
    return this.listedVersion === this.filterVersion ? this.cursor : null;
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
    if (this.listedVersion !== this.filterVersion) return this.more(options);
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
    return [...this.cards.values()].filter(({ job }) => UNFINISHED.has(job.status));
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
      if (failure.name !== "AbortError") throw failure.status === 404 ? new Error(t("page.jobs.no_such")) : failure;
    }
  }

  showJob(job) {
    const known = this.cards.get(job.export_job_id);
    if (known) {
      known.show(job);
      return known;
    }
    const card = new Card(job, this);
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
      if (failure.status === 404) this.removeCard(id);
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

  /** Receive server-sent events while the page is open. */
  async listen() {
    let wait = 1000;
    let last;
    let again = false;
    const opened = () => {
      this.setLive(true);
      if (again || this.unfinished.length || this.listedVersion !== this.filterVersion) this.renew(); // events tell of what is unfinished now
      again = true;
    };
    while (!this.abortController.signal.aborted) {
      try {
        for await (const event of events("exports/events", { last, opened, signal: this.abortController.signal })) {
          last = event.id ?? last;
          wait = 1000;
          if (event.type === "job") this.addIfListed(parse(event.data));
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error instanceof Failure && error.status >= 400 && error.status < 500 && error.status !== 429) return;
      }
      this.setLive(false);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  setLive(on) {
    if (this.live === on) return;
    this.live = on;
    this.showLive();
  }

  /** Show whether changes come at once. A stream can be open and silent because the service does not answer. */
  showLive() {
    const on = this.live && !isAway();
    if (!this.live && !byId("live").textContent) return; // there never was a stream
    byId("live").textContent = on ? t("page.jobs.live") : t("page.jobs.not_live");
    byId("live").classList.toggle("off", !on);
  }

  /** Poll while there are no events: often while a job runs, otherwise rarely. Events are of the user's own jobs only. */
  poll(turn = 1, { rest = POLL, until = 0 } = {}) {
    this.next = setTimeout(async () => {
      const { unfinished } = this;
      const ended = this.failed && !this.failed.passes; // until the user searches for something else
      const behind = this.failed?.passes || this.hasGrown; // what has failed is tried again
      const silent = !this.live || behind || this.user.admin || unfinished.some(({ job }) => job.user_id !== this.user.id);
      if (silent && (unfinished.length || turn % SELDOM === 0) && !document.hidden && now() >= until) {
        try {
          await (ended ? this.refreshUnfinished() : this.newest({ attempts: 1 }));
          if (!this.failed) showMessage(this.problem, "");
        } catch (failure) {
          if (failure.name === "AbortError" || failure.status === 401) return;
          showRecoverableError(this.problem, failure);
        }
        rest = this.failed?.passes ? Math.min(rest * 2, LONGEST_REST) : POLL;
        until = rest > POLL ? now() + rest : 0;
      }
      this.poll(turn + 1, { rest, until });
    }, POLL);
  }

  updateTimes() {
    if (this.day !== today()) for (const card of this.cards.values()) card.showAbout();
    this.day = today();
    for (const card of this.cards.values()) if (card.job.status === "processing") card.showFacts();
  }
}

/** One export. Its elements and the places of its buttons stay, so no focus and no click is lost. */
class Card {
  constructor(job, jobs) {
    this.jobs = jobs;
    this.problem = errorMessage();
    this.state = element("span", { class: "state" });
    this.facts = element("p", { class: "facts" });
    this.error = element("p", { class: "error", hidden: true });
    this.delivery = element("div");
    this.warnings = element("ul", { class: "warnings", "aria-label": t("page.jobs.warnings") });
    this.bar = element("progress", { hidden: true, "aria-label": t("page.jobs.progress", { dataset: title(job) }) });
    this.download = button(t("page.jobs.download"), (pressed) => this.downloadFile(pressed), "soft");
    this.files = new FileList(this.problem);
    this.list = button(t("page.jobs.files"), (pressed) => this.files.toggle(this.job, pressed), "soft");
    this.list.setAttribute("aria-expanded", "false");
    this.password = new Password(this.problem);
    this.cancel = button(t("page.jobs.cancel"), (pressed) => this.cancelOrRemove(pressed));
    this.repeat = button(t("page.jobs.edit_and_run"), () => jobs.again(this.job));
    this.rerun = button(t("page.jobs.run_again"), (pressed) => this.runAgain(pressed));
    this.copy = button(t("page.jobs.copy_link"), () => this.copyLink());
    this.copied = element("p", { class: "hint", role: "status", hidden: true });
    this.remove = confirmButton(t("page.jobs.remove"), t("page.jobs.remove_question"), (pressed) => this.cancelOrRemove(pressed));
    const zone = job.window?.timezone ?? job.options?.timezone;
    const wanted = [filtersText(job.filters, job.export_type, zone, job.created_at), filtersText(job.parameters, job.export_type, zone)].filter(Boolean).join(" · ");
    const { user } = jobs;
    this.isOpen = job.user_id === user.id || user.admin; // others who see the job do not see its request
    const source = this.isOpen && job.schedule_id && button(t("page.jobs.by_schedule"), (pressed) => busy(pressed, this.problem, () => jobs.schedule(job.schedule_id)));
    const whose = job.user_id === user.id ? null : t("page.jobs.for_user", { user: job.user_id });
    const extent = [scopeText(job.scope), job.columns && t("page.jobs.columns", { count: job.columns.length }), wanted];
    this.about = element("p", { class: "hint" });
    this.showAbout = () => (this.about.textContent = [whose, moment(job.created_at), ...extent].filter(Boolean).join(" · "));
    this.showAbout();
    this.element = element(
      "li",
      { id: `job-${job.export_job_id}`, class: "job", tabindex: -1 },
      element("div", { class: "heading" }, element("h3", {}, `${title(job)} `, element("span", { class: "kind" }, subtitle(job))), this.state),
      this.about,
      source && element("p", { class: "buttons" }, source),
      element("div", { class: "acts" }, element("p", { class: "buttons" }, this.repeat, this.copy, this.rerun, this.download, this.list, this.password.button, this.remove), element("p", { class: "buttons" }, this.cancel)),
      this.bar,
      this.facts,
      this.delivery,
      this.warnings,
      this.error,
      this.problem,
      this.copied,
      this.password.place,
      this.files.element,
    );
    this.show(job);
  }

  show(job) {
    const before = this.job;
    if (before && compareKey(before) > compareKey(job)) return; // an answer that was overtaken
    this.job = job;
    this.seen = now();
    const open = UNFINISHED.has(job.status);
    const stops = job.cancel_requested && open;
    if (open) for (const own of [this.bar, this.cancel]) own.classList.add("keep");
    this.state.textContent = stops ? t("page.jobs.cancelling") : status(isRemoved(job) ? "removed" : job.status);
    this.element.dataset.status = job.status;
    this.bar.hidden = job.status !== "processing";
    showMessage(this.error, job.error && problemText(job.error));
    const texts = job.status === "completed" ? warnings(job.warnings) : [];
    this.warnings.replaceChildren(...texts.map((text) => element("li", {}, text)));
    this.warnings.hidden = !texts.length;
    const focused = document.activeElement;
    this.repeat.hidden = !this.isOpen;
    this.remove.hidden = job.status !== "completed" || !this.isOpen;
    this.download.hidden = !job.download_url;
    this.list.hidden = !job.files_url || Boolean(job.download_url);
    this.password.show(job, job.user_id === this.jobs.user.id);
    if (this.list.hidden) this.files.close(this.list);
    this.cancel.hidden = !open || stops;
    this.rerun.hidden = open;
    if (focused.hidden && this.element.contains(focused)) (this.isOpen ? this.repeat : this.copy).focus();
    if (before && before.status !== job.status && !open) {
      const result = sentence(job.error && problemText(job.error)) ?? (job.status === "completed" ? rows(job.row_count) : "");
      byId("news").textContent = t("page.jobs.ended", { dataset: title(job), format: subtitle(job), status: status(job.status), result });
    }
    this.showFacts();
    if (job.destination) this.showDelivery();
  }

  async showDelivery() {
    try {
      const { DeliveryState } = await destinationModule();
      this.sent ??= new DeliveryState(this.delivery, this.jobs.user);
      this.sent.show(this.job);
    } catch (failure) {
      showRecoverableError(this.problem, failure);
    }
  }

  showFacts() {
    const job = this.job;
    const parts = [];
    if (job.status === "processing") {
      const since = new Date(job.started_at ?? job.created_at);
      const done = job.row_count ?? 0;
      const all = Math.max(job.estimated_rows ?? 0, done);
      const rate = (done / Math.max(100, this.seen - since)) * 1000;
      const seconds = Math.max(0, now() - since) / 1000;
      if (done && all > done) {
        this.bar.max = all;
        this.bar.value = done;
        parts.push(t("page.jobs.rows_of", { done, rows: rows(all) }), t("page.jobs.per_second", { count: Math.round(rate) }));
        parts.push(t("page.jobs.time_left", { duration: duration(Math.max(0, all / rate - seconds)) }));
      } else {
        this.bar.removeAttribute("value");
        parts.push(done ? t("page.jobs.rows_so_far", { rows: rows(done) }) : t("page.jobs.starting"), duration(seconds));
      }
      if (job.attempt > 1) parts.push(t("page.jobs.attempt", { number: job.attempt }));
    } else if (job.status === "completed") {
      parts.push(several(job) ?? job.file_name, job.row_count ? rows(job.row_count) : t("page.jobs.no_rows"), size(job.file_size));
      parts.push(t("page.jobs.kept_until", { date: date(job.expires_at) }));
    } else if (job.status === "pending") {
      parts.push(job.attempt ? t("page.jobs.retried") : t("page.jobs.waiting"));
    } else if (job.status === "expired") {
      parts.push(isRemoved(job) ? t("page.jobs.removed") : t("page.jobs.expired", { date: date(job.expires_at) }));
    }
    this.facts.textContent = parts.filter(Boolean).join(" · ");
    this.facts.hidden = !parts.length;
  }

  /** Take the focus. */
  focus() {
    this.element.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest" });
  }

  downloadFile(pressed) {
    return busy(pressed, this.problem, () => download(`exports/jobs/${this.job.export_job_id}/download`));
  }

  /** Copy the address at which the page shows this export, to users who can see it. */
  async copyLink() {
    const link = `${PAGE}#${this.element.id}`;
    let text = t("page.jobs.link_copied");
    clearTimeout(this.reading);
    try {
      await navigator.clipboard.writeText(link);
      this.reading = setTimeout(() => (this.copied.hidden = true), READING);
    } catch {
      text = t("page.jobs.link", { link }); // without a secure connection, or without the permission
    }
    this.copied.textContent = `${text} ${t("page.jobs.link_for")}`;
    this.copied.hidden = false;
  }

  /** Make a new job with the same request. */
  runAgain(pressed) {
    return busy(pressed, this.problem, async () => {
      const { export_job_id: id } = await post(`exports/jobs/${this.job.export_job_id}:rerun`);
      const { jobs } = this;
      const card = (await jobs.refresh(id)) ?? jobs.cards.get(id);
      if (canMoveFocus()) card?.focus();
    });
  }

  cancelOrRemove(pressed) {
    return busy(pressed, this.problem, async () => {
      await call("DELETE", `exports/jobs/${this.job.export_job_id}`);
      await this.jobs.refresh(this.job.export_job_id);
    });
  }
}

/** What people call an export: its name, or that of its dataset. */
const title = (job) => job.name ?? titleOf(job.export_type);

/** Whether the file was removed before it expired. */
const isRemoved = (job) => job.status === "expired" && job.cancel_requested;

const subtitle = (job) => [job.name && titleOf(job.export_type), formatName(job.format), job.options?.compression].filter((part) => part && part !== "none").join(" · ");

/** The order of two views of a job: the later one has the higher number. Before a new attempt a job is pending again. */
function compareKey(job) {
  const rank = { processing: 0, pending: 1, expired: 3 }[job.status] ?? 2;
  return (job.attempt * 4 + rank) * 1e12 + (job.row_count ?? 0) + (job.cancel_requested ? 0.5 : 0);
}
