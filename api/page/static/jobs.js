// The list of exports: live, newest first.

import { Failure, call, events } from "./api.js";
import { isAway } from "./connection.js";
import { alert, busy, button, byId, h, nameButtons, report, say, twice } from "./dom.js";
import { FileList, several } from "./files.js";
import { titleOf } from "./labels.js";
import { problemText, t } from "./messages.js";
import { date, duration, filters, format, moment, rows, scopeText, second, sentence, size, status } from "./words.js";
import { warnings } from "./warnings.js";

const POLL = 1500; // milliseconds between questions where events do not come
const SELDOM = 10; // of them one is asked while nothing runs
const LONGEST_WAIT = 10000; // between two attempts to listen

const UNFINISHED = new Set(["pending", "processing"]);

export class Jobs {
  constructor(user, { again }) {
    this.user = user;
    this.again = again;
    this.cards = new Map();
    this.list = byId("job-list");
    this.problem = byId("jobs-problem");
    this.older = byId("older");
    this.older.onclick = () => busy(this.older, this.problem, () => this.more());
    this.cursor = null;
    this.live = false;
    this.life = new AbortController();
    this.wanted = new Map();
  }

  /** Show the newest page and follow all changes until `stop`. */
  async start() {
    await this.more().catch((failure) => report(this.problem, failure));
    if (this.life.signal.aborted) return;
    this.listen();
    this.poll();
    this.clock = setInterval(() => this.tick(), 1000);
  }

  stop() {
    this.life.abort();
    clearInterval(this.clock);
    clearTimeout(this.next);
    byId("live").textContent = "";
    this.list.replaceChildren();
  }

  async more() {
    const page = await call("GET", `exports/jobs?limit=10${this.cursor ? `&cursor=${this.cursor}` : ""}`);
    this.cursor = page.next_cursor;
    for (const job of page.jobs) this.put(job);
    this.settle();
  }

  /** Show what has changed while the service did not answer. */
  async renew() {
    try {
      if (!this.cards.size) await this.more();
      else for (const job of (await call("GET", "exports/jobs?limit=10", { signal: this.life.signal })).jobs) this.put(job);
      say(this.problem, "");
    } catch (failure) {
      if (failure.name !== "AbortError") report(this.problem, failure);
    }
  }

  settle() {
    this.older.hidden = !this.cursor;
    byId("no-jobs").hidden = this.cards.size > 0;
  }

  put(job) {
    const known = this.cards.get(job.export_job_id);
    if (known) {
      known.show(job);
      return known;
    }
    const card = new Card(job, this);
    nameButtons(card.element, second(job.created_at));
    const older = [...this.cards.values()].filter((other) => other.job.created_at < job.created_at);
    const next = older.reduce((one, other) => (one && one.job.created_at > other.job.created_at ? one : other), null);
    this.list.insertBefore(card.element, next && next.element);
    this.cards.set(job.export_job_id, card);
    this.settle();
    return card;
  }

  /** Read one job and show it; read it again if that was requested in the meantime. */
  async refresh(id) {
    if (this.wanted.has(id)) {
      this.wanted.set(id, true);
      return;
    }
    this.wanted.set(id, false);
    try {
      return this.put(await call("GET", `exports/jobs/${id}`, { signal: this.life.signal }));
    } catch (failure) {
      if (failure.status !== 404 && failure.name !== "AbortError") report(this.problem, failure);
    } finally {
      const again = this.wanted.get(id);
      this.wanted.delete(id);
      if (again) this.refresh(id);
    }
  }

  /** Receive server-sent events while the page is open. */
  async listen() {
    let wait = 1000;
    let last;
    while (!this.life.signal.aborted) {
      try {
        const opened = () => this.lives(true);
        for await (const event of events("exports/events", { last, opened, signal: this.life.signal })) {
          last = event.id ?? last;
          wait = 1000;
          if (event.type === "job") this.put(JSON.parse(event.data));
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error instanceof Failure && error.status >= 400 && error.status < 500 && error.status !== 429) return;
      }
      this.lives(false);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  lives(on) {
    if (this.live === on) return;
    this.live = on;
    this.showLive();
  }

  /** Show whether changes come at once. A stream can be open and silent because the service does not answer. */
  showLive() {
    const on = this.live && !isAway();
    if (!this.live && !byId("live").textContent) return; // there never was a stream: the list is read now and then
    byId("live").textContent = on ? t("page.jobs.live") : t("page.jobs.not_live");
    byId("live").classList.toggle("off", !on);
  }

  /** Poll while there are no events: often while a job runs, otherwise rarely. Events are of the user's own jobs only. */
  poll(turn = 1) {
    this.next = setTimeout(async () => {
      const due = turn % SELDOM === 0 || [...this.cards.values()].some((card) => UNFINISHED.has(card.job.status));
      if (due && (!this.live || this.user.admin) && !document.hidden) {
        try {
          const page = await call("GET", "exports/jobs?limit=10", { signal: this.life.signal, attempts: 1 });
          for (const job of page.jobs) this.put(job);
          say(this.problem, "");
        } catch (failure) {
          if (failure.name === "AbortError" || failure.status === 401) return;
          report(this.problem, failure);
        }
      }
      this.poll(turn + 1);
    }, POLL);
  }

  tick() {
    for (const card of this.cards.values()) if (card.job.status === "processing") card.showFacts();
  }
}

/** One export. Its elements stay and only their texts change, so the focus is not lost. */
class Card {
  constructor(job, jobs) {
    this.jobs = jobs;
    this.problem = alert();
    this.state = h("span", { class: "state" });
    this.facts = h("p", { class: "facts" });
    this.error = h("p", { class: "error", hidden: true });
    this.warnings = h("ul", { class: "warnings", "aria-label": t("page.jobs.warnings") });
    this.bar = h("progress", { hidden: true, "aria-label": t("page.jobs.progress", { dataset: titleOf(job.export_type) }) });
    this.download = button(t("page.jobs.download"), (pressed) => this.fetch(pressed), "soft");
    this.files = new FileList(this.problem);
    this.list = button(t("page.jobs.files"), (pressed) => this.files.toggle(this.job, pressed), "soft");
    this.list.setAttribute("aria-expanded", "false");
    this.cancel = button(t("page.jobs.cancel"), (pressed) => this.drop(pressed));
    this.repeat = button(t("page.jobs.again"), () => jobs.again(this.job));
    this.remove = twice(t("page.jobs.remove"), t("page.jobs.remove_question"), (pressed) => this.drop(pressed));
    const zone = job.options?.timezone;
    const wanted = [filters(job.filters, zone), filters(job.parameters, zone)].filter(Boolean).join(" · ");
    const whose = job.user_id === jobs.user.id ? null : t("page.jobs.for_user", { user: job.user_id });
    const extent = [scopeText(job.scope), job.columns && t("page.jobs.columns", { count: job.columns.length }), wanted];
    this.element = h(
      "li",
      { id: `job-${job.export_job_id}`, class: "job", tabindex: -1 },
      h("div", { class: "heading" }, h("h3", {}, `${titleOf(job.export_type)} `, h("span", { class: "kind" }, kind(job))), this.state),
      h("p", { class: "hint" }, [whose, moment(job.created_at), ...extent].filter(Boolean).join(" · ")),
      this.bar,
      this.facts,
      this.warnings,
      this.error,
      this.problem,
      h("p", { class: "buttons" }, this.download, this.list, this.cancel, this.repeat, this.remove),
      this.files.element,
    );
    this.show(job);
  }

  show(job) {
    const before = this.job;
    if (before && order(before) > order(job)) return; // an answer that was overtaken
    this.job = job;
    this.seen = Date.now();
    const stops = job.cancel_requested && UNFINISHED.has(job.status);
    this.state.textContent = stops ? t("page.jobs.cancelling") : status(job.status);
    this.element.dataset.status = job.status;
    this.bar.hidden = job.status !== "processing";
    say(this.error, job.error && problemText(job.error));
    const texts = job.status === "completed" ? warnings(job.warnings) : [];
    this.warnings.replaceChildren(...texts.map((text) => h("li", {}, text)));
    this.warnings.hidden = !texts.length;
    const focused = document.activeElement;
    this.remove.hidden = job.status !== "completed";
    this.download.hidden = !job.download_url;
    this.list.hidden = !job.files_url || Boolean(job.download_url);
    if (this.list.hidden) this.files.element.hidden = true;
    this.cancel.hidden = !UNFINISHED.has(job.status) || stops;
    if (focused.hidden && this.element.contains(focused)) [this.download, this.list, this.repeat].find((button) => !button.hidden).focus();
    if (before && before.status !== job.status && !UNFINISHED.has(job.status)) {
      const result = sentence(job.error && problemText(job.error)) ?? (job.status === "completed" ? rows(job.row_count) : "");
      byId("news").textContent = t("page.jobs.ended", { dataset: titleOf(job.export_type), format: kind(job), status: status(job.status), result });
    }
    this.showFacts();
  }

  showFacts() {
    const job = this.job;
    const parts = [];
    if (job.status === "processing") {
      const since = new Date(job.started_at ?? job.created_at);
      const done = job.row_count ?? 0;
      const all = Math.max(job.estimated_rows ?? 0, done);
      const rate = (done / Math.max(100, this.seen - since)) * 1000;
      const seconds = (Date.now() - since) / 1000;
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
      const seconds = (new Date(job.completed_at) - new Date(job.started_at)) / 1000;
      parts.push(several(job), rows(job.row_count), size(job.file_size), duration(seconds));
      if (seconds >= 1) parts.push(t("page.jobs.rows_per_second", { count: Math.round(job.row_count / seconds) }));
      parts.push(t("page.jobs.kept_until", { date: date(job.expires_at) }));
    } else if (job.status === "pending") {
      parts.push(job.attempt ? t("page.jobs.retried") : t("page.jobs.waiting"));
    } else if (job.status === "expired") {
      parts.push(t("page.jobs.gone"));
    }
    this.facts.textContent = parts.filter(Boolean).join(" · ");
    this.facts.hidden = !parts.length;
  }

  /** The link is valid for a short time, so each click requests a new one. The token is not sent to the store. */
  fetch(pressed) {
    return busy(pressed, this.problem, async () => {
      const { url } = await call("GET", `exports/jobs/${this.job.export_job_id}/download`);
      location.assign(url);
    });
  }

  drop(pressed) {
    return busy(pressed, this.problem, async () => {
      await call("DELETE", `exports/jobs/${this.job.export_job_id}`);
      await this.jobs.refresh(this.job.export_job_id);
    });
  }
}

const kind = (job) => [format(job.format), job.options?.compression].filter((part) => part && part !== "none").join(" · ");

/** The order of two views of a job: the later one has the higher number. Before a new attempt a job is pending again. */
function order(job) {
  const rank = { processing: 0, pending: 1, expired: 3 }[job.status] ?? 2;
  return (job.attempt * 4 + rank) * 1e12 + (job.row_count ?? 0) + (job.cancel_requested ? 0.5 : 0);
}
