// The jobs of all users: filters, why a job waits, cancel, run again.

import { call, post } from "./api.js";
import { busy, button, choice, confirmButton, element, errorMessage, field, focusIfIdle, nameWith, runAgainIfRequested, showButton } from "./dom.js";
import { update } from "./live_list.js";
import { has, t } from "./messages.js";
import { duration, formatName, moment, rows, size, status } from "./words.js";

const STATES = ["pending", "processing", "completed", "failed", "cancelled", "expired"];
const UNFINISHED = new Set(["pending", "processing"]);
const STEP = 20;
const MOST = 100; // jobs that one call of the service lists
const CANCEL_TIMEOUT = 60_000; // milliseconds: the service takes 20 s, and waits for locks
const MOST_CALLS = 20;
const PAUSE = 1000; // milliseconds between these calls: a database that is away must not get all of them at once

export class OperatorJobs {
  constructor(user) {
    this.user = user;
    this.limit = STEP;
    this.cursor = "";
    this.refused = null; // a query that is not asked again, and why
    this.list = element("ul", { class: "rows", "aria-label": t("page.operations.jobs") });
    this.none = element("p", { class: "empty", hidden: true }, t("page.operations.no_jobs"));
    this.problem = errorMessage();
    this.news = element("p", { class: "hint", role: "status" });
    const again = () => runAgainIfRequested(this.list, this.problem, () => this.turn());
    this.state = choice([["", t("page.operations.any")], ...STATES.map((name) => [name, status(name)])], { onchange: again });
    this.dataset = choice([["", t("page.operations.any")]], { onchange: again });
    this.age = choice(
      [["", t("page.operations.any")], ["today", t("page.operations.ages.today")], ["now-1h", t("page.operations.ages.hour")], ["now-7d", t("page.operations.ages.week")], ["now-30d", t("page.operations.ages.month")]],
      { onchange: again },
    );
    this.owner = element("input", { type: "search", maxLength: 255, autocomplete: "off", onchange: again });
    this.more = button(t("page.operations.more"), (pressed) =>
      busy(pressed, this.problem, () => {
        this.limit = Math.min(MOST, this.limit + STEP);
        return this.load();
      }));
    this.older = button(t("page.operations.older"), (pressed) => busy(pressed, this.problem, () => this.turn(this.next, pressed)));
    this.newest = button(t("page.operations.newest"), (pressed) => busy(pressed, this.problem, () => this.turn("", pressed)));
    this.pauseUser = confirmButton(t("page.operations.pause_user"), t("page.operations.pause_question"), (pressed) =>
      busy(pressed, this.problem, async () => {
        const user = this.owner.value.trim();
        await call("POST", "exports/pauses", { body: { scope: `user:${user}` } });
        this.news.textContent = t("page.operations.paused", { scope: t("page.operations.user", { user }) });
      }));
    this.cancelAll = confirmButton(t("page.operations.cancel_all"), t("page.operations.cancel_all_question"), (pressed) =>
      busy(pressed, this.problem, async () => {
        try {
          await cancelAll(this.owner.value.trim(), (text) => (this.news.textContent = text));
        } catch (failure) {
          await this.load().catch(() => {}); // some jobs can have been cancelled
          throw failure;
        }
        await this.load();
      }));
    this.element = element(
      "section",
      {},
      element("h3", {}, t("page.operations.jobs")),
      element("div", { class: "choices" }, field(t("page.operations.filters.status"), this.state), field(t("page.operations.filters.dataset"), this.dataset), field(t("page.operations.filters.user"), this.owner), field(t("page.operations.filters.age"), this.age)),
      this.problem,
      this.news,
      element("p", { class: "buttons" }, this.pauseUser, this.cancelAll),
      this.list,
      this.none,
      element("p", { class: "buttons" }, this.more, this.older, this.newest),
    );
  }

  /** Offer the datasets as a filter. The choice stays. */
  offer(datasets) {
    const chosen = this.dataset.value;
    this.dataset.replaceChildren(element("option", { value: "" }, t("page.operations.any")), ...datasets.map((name) => element("option", { value: name }, name)));
    this.dataset.value = datasets.includes(chosen) ? chosen : "";
  }

  /** Show another page: `cursor` names the jobs that are older than the last one here, none the newest. */
  async turn(cursor = "", pressed = null) {
    this.cursor = cursor;
    this.limit = cursor ? MOST : STEP;
    await this.load();
    if (pressed?.hidden) focusIfIdle(this.state);
    if (pressed) this.element.scrollIntoView({ behavior: "instant" });
  }

  /** What is wanted now: the filters and the page. */
  get query() {
    const wanted = { cursor: this.cursor, limit: this.limit, status: this.state.value, export_type: this.dataset.value, user_id: this.owner.value.trim(), since: this.age.value };
    return new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
  }

  /** Read the list again. What would be refused again, or would be too slow again, is not asked for. */
  async reload() {
    if (this.refused?.query === this.query) throw this.refused.failure;
    await this.load();
  }

  async load() {
    const { query } = this;
    const { jobs, next_cursor: older } = await call("GET", `exports/jobs?${query}`, { attempts: 1 }).catch((failure) => {
      if (failure.passes === false) this.refused = { query, failure };
      throw failure;
    });
    this.refused = null;
    if (query !== this.query) return; // something else is wanted now
    this.next = older;
    const before = this.list.lastElementChild;
    update(this.list, jobs, (job) => job.export_job_id, (job) => this.card(job));
    this.none.hidden = jobs.length > 0;
    showButton(this.more, older && this.limit < MOST, (before?.nextElementSibling ?? this.list).querySelector("button"));
    this.older.hidden = !older || this.limit < MOST;
    this.newest.hidden = !this.cursor;
    this.cancelAll.hidden = this.pauseUser.hidden = !this.owner.value.trim();
  }

  card(job) {
    const path = `exports/jobs/${job.export_job_id}`;
    const problem = errorMessage();
    const explained = element("p", { class: "warnings", role: "status", hidden: true });
    const name = element("h4", {}, `${job.export_type} `, element("span", { class: "kind" }, formatName(job.format)));
    const whose = element("span", {}, t("page.operations.user", { user: job.user_id }));
    const id = element("code", {}, job.export_job_id);
    const unfinished = UNFINISHED.has(job.status);
    const facts = [moment(job.created_at), job.row_count !== null && rows(job.row_count), job.file_size !== null && size(job.file_size), job.attempt > 1 && t("page.operations.attempt", { number: job.attempt }), job.rerun_of && t("page.operations.is_rerun"), job.cancel_requested && unfinished && t("page.operations.cancelling")];
    const buttons = [
      button(t("page.operations.why"), (pressed) =>
        busy(pressed, problem, async () => {
          explained.textContent = explain(await call("GET", `${path}/why`));
          explained.hidden = false;
        })),
      button(t("page.operations.rerun"), (pressed) =>
        busy(pressed, problem, async () => {
          await post(`${path}:rerun`);
          this.news.textContent = t("page.operations.rerun_done", { dataset: job.export_type, user: job.user_id });
          await this.load();
        })),
      unfinished && !job.cancel_requested &&
        confirmButton(t("page.operations.cancel"), t("page.operations.cancel_question"), (pressed) =>
          busy(pressed, problem, async () => {
            await call("DELETE", path);
            focusIfIdle(this.state); // a card with the focus stays as it is
            await this.load();
          })),
    ].filter(Boolean);
    for (const own of buttons) nameWith(own, name, whose, id);
    return element(
      "li",
      { class: "job", "data-status": job.status },
      element("div", { class: "heading" }, name, element("span", { class: "state" }, status(job.status))),
      element("p", { class: "hint" }, whose, [" ", ...facts].filter(Boolean).join(" · ")),
      element("p", { class: "hint" }, id),
      element("p", { class: "error", hidden: !job.error }, job.error && reason(job.error, this.user.admin || job.user_id === this.user.id)),
      explained,
      problem,
      element("p", { class: "buttons" }, buttons),
    );
  }
}

/** Cancel all jobs of a user. One call of the service takes a limited time, so it is repeated until none is left. */
async function cancelAll(user, showProgress) {
  for (let calls = 1; ; calls += 1) {
    try {
      const { export_job_ids: ids } = await call("POST", "exports/jobs:cancel", { body: { user_id: user }, timeout: CANCEL_TIMEOUT });
      showProgress(calls > 1 ? t("page.operations.all_cancelled") : t("page.operations.cancelled", { count: ids.length }));
      return;
    } catch (failure) {
      if (failure.code !== "cancellation_incomplete" || calls === MOST_CALLS) {
        showProgress(""); // the calls end here
        throw failure;
      }
      showProgress(t("page.operations.cancel_goes_on"));
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

/** What an error means. Its text belongs to the user of the job; others learn what its code means, and where the text is. */
export function reason({ code, message }, own) {
  const known = !own && has(`errors.${code}`);
  return known ? t("page.operations.meaning", { code, message: t(`errors.${code}`) }) : t("page.operations.error", { code, message });
}

/** Why a job waits or what it does, in one paragraph. */
function explain(found) {
  const reason = has(`page.operations.reasons.${found.reason}`) ? t(`page.operations.reasons.${found.reason}`) : found.text;
  const waits = found.status === "pending"; // the slots of now say nothing about a job that has started
  const stages = Object.entries(found.seconds).map(([stage, seconds]) => t("page.operations.stage", { stage: t(`page.operations.stages.${stage}`), seconds: duration(seconds) }));
  return [
    reason,
    found.place !== null && t("page.operations.place", { place: found.place }),
    waits && t("page.operations.user_slots", { used: found.user_running, all: found.user_slots }),
    waits && t("page.operations.all_slots", { used: found.slots_running, all: found.slots, count: found.workers }),
    found.worker && t("page.operations.on_worker", { worker: found.worker }),
    found.phase && has(`page.operations.phases.${found.phase}`) && t(`page.operations.phases.${found.phase}`),
    ...stages,
    found.queue_seconds !== null && t("page.operations.waited", { time: duration(found.queue_seconds) }),
    found.run_seconds !== null && t("page.operations.ran", { time: duration(found.run_seconds) }),
    found.not_before && t("page.operations.not_before", { time: moment(found.not_before) }),
    found.failures > 0 && t("page.operations.failed_attempts", { count: found.failures, most: found.max_attempts }),
  ].filter(Boolean).join(" · ");
}
