// The list of schedules with their next runs.

import { call, post } from "./api.js";
import { busy, button, byId, confirmButton, element, errorMessage, focusIfIdle, nameButtons, showButton, showMessage, showRecoverableError } from "./dom.js";
import { download } from "./files.js";
import { filtersText, windowText } from "./filter_texts.js";
import { destinationOf, titleOf } from "./labels.js";
import { update } from "./live_list.js";
import { has, language, problemText, t } from "./messages.js";
import { rhythm } from "./repeat.js";
import { formatName, moment, rows, runTime, scopeText, sentence, size, status } from "./words.js";

const STEP = 20;
const MOST = 100; // schedules that one call lists
// Milliseconds between two readings while the page is visible: next runs and last runs change without a call
const OFTEN = 300_000;
const AFTER_ERROR = 15_000;

/** Which rows a run has, in the words of the form. */
function rowsOf({ schedule, window }) {
  if (window !== "previous_period") return has(`page.schedules.windows.${window}`) && t(`page.schedules.windows.${window}`);
  const kind = ["daily", "weekly", "monthly"].includes(schedule) ? schedule : "cron";
  return t(`page.repeat.previous_period.${kind}`);
}

export class Schedules {
  /** `ran(job)` is called when a run was started, `show(id)` shows a job, `edit(schedule)` and `copy(schedule)` fill the form. */
  constructor(user, { ran, show, edit, copy }) {
    this.user = user;
    Object.assign(this, { ran, show, edit, copy });
    this.list = byId("schedule-list");
    this.problem = byId("schedules-problem");
    this.older = byId("older-schedules");
    this.older.onclick = () => busy(this.older, this.problem, () => this.more());
    this.shown = [];
    this.reading = new AbortController();
    this.abortController = new AbortController();
  }

  /** End the readings that are under way: their answers would be older than what comes now. */
  begin() {
    this.reading.abort();
    clearTimeout(this.timer);
    this.reading = new AbortController();
    return this.reading.signal;
  }

  /** Read as many schedules as are shown, and read them again after a while. */
  async load() {
    const signal = this.begin();
    let wait = OFTEN;
    try {
      const most = Math.max(STEP, this.shown.length);
      const found = new Map(); // by their ids: what changes between two pages must not be twice in the list
      let cursor;
      do {
        const limit = Math.min(MOST, most - found.size);
        const page = await call("GET", `exports/schedules?limit=${limit}${cursor ? `&cursor=${cursor}` : ""}`, { signal });
        if (signal.aborted) return;
        for (const schedule of page.schedules) found.set(schedule.id, schedule);
        cursor = page.next_cursor;
      } while (cursor && found.size < most);
      const unshown = this.put([...found.values()], cursor);
      if (unshown) throw unshown;
      showMessage(this.problem, "");
    } catch (failure) {
      if (signal.aborted || failure.name === "AbortError" || failure.status === 401) return;
      showRecoverableError(this.problem, failure);
      wait = AFTER_ERROR;
    }
    this.timer = setTimeout(() => {
      if (!document.hidden) this.load();
      else document.addEventListener("visibilitychange", () => this.load(), { once: true, signal });
    }, wait);
  }

  async more() {
    const { signal } = this.reading;
    const page = await call("GET", `exports/schedules?limit=${STEP}&cursor=${this.cursor}`, { signal });
    if (signal.aborted) return;
    const known = new Set(this.shown.map(({ id }) => id));
    const others = page.schedules.filter(({ id }) => !known.has(id));
    const unshown = this.put([...this.shown, ...others], page.next_cursor, others[0]);
    if (unshown) throw unshown;
  }

  /** `next`: the first of those that were read for a press of the button. Returns the error of a card that cannot be shown. */
  put(schedules, cursor, next) {
    this.shown = schedules;
    const unshown = update(this.list, schedules, ({ id }) => id, (schedule) => nameButtons(this.card(schedule), rhythm(schedule)));
    this.cursor = cursor;
    showButton(this.older, cursor, next && byId(`schedule-${next.id}`));
    byId("no-schedules").hidden = schedules.length > 0;
    return unshown;
  }

  /** Show a schedule, and move the focus to it. It is read if it is on a later page. */
  async find(id) {
    let unshown;
    if (!byId(`schedule-${id}`)) {
      const found = await call("GET", `exports/schedules/${id}`, { signal: this.abortController.signal });
      unshown = this.put([...this.shown.filter((other) => other.id !== id), found], this.cursor);
    }
    const card = byId(`schedule-${id}`);
    if (!card) throw unshown;
    focusIfIdle(card);
    card.scrollIntoView({ block: "nearest" });
  }

  /** Show nothing, and wait for no answer, until the next `load`. */
  stop() {
    this.begin();
    this.abortController.abort();
    this.abortController = new AbortController();
    this.put([], null);
    byId("no-schedules").hidden = true;
    showMessage(this.problem, "");
  }

  /** The last runs, which are read each time the list is opened. */
  history(path, zone) {
    const list = element("ol", { class: "history", "aria-label": t("page.schedules.past_runs") });
    const problem = errorMessage();
    const show = async () => {
      const { runs } = await call("GET", path);
      list.replaceChildren(...runs.map((one) => this.run(one, zone, problem)));
      if (!runs.length) list.append(element("li", {}, t("page.schedules.no_runs")));
    };
    const ontoggle = ({ currentTarget: own }) => own.open && busy(list, problem, show);
    return element("details", { ontoggle }, element("summary", {}, t("page.schedules.past_runs")), list, problem);
  }

  /** A run with links to its job and its file. */
  run(one, zone, problem) {
    const words = { run: runTime(one.run_at, zone) };
    const shown = button(t("page.schedules.show_job"), (pressed) => busy(pressed, problem, () => this.show(one.export_job_id)));
    shown.setAttribute("aria-label", t("page.schedules.show_job_of", words));
    const file = one.download_url && button(t("page.schedules.download"), (pressed) => busy(pressed, problem, () => download(one.download_url)));
    if (file) file.setAttribute("aria-label", t("page.schedules.download_of", words));
    return element("li", {}, element("span", {}, outcome(one, zone)), element("span", { class: "buttons" }, file, shown));
  }

  card(schedule) {
    const path = `exports/schedules/${schedule.id}`;
    const problem = errorMessage();
    const does = (text, act) => button(text, (pressed) => busy(pressed, problem, act));
    const change = async (method, body) => {
      await call(method, path, { body });
      focusIfIdle(byId("schedules")); // a card with the focus stays as it is
      await this.load();
    };
    const shown = (address) => (schedule.unsubscribed?.includes(address) ? t("page.schedules.unsubscribed", { address }) : address);
    const { active, next_runs: next = [], last_run: last, email_recipients: mail, destination } = schedule;
    const whose = schedule.user_id === this.user.id ? null : t("page.schedules.for_user", { user: schedule.user_id });
    const zone = schedule.options?.timezone ?? schedule.timezone;
    const facts = [scopeText(schedule.scope), rowsOf(schedule), filtersText(schedule.filters, schedule.export_type, zone), filtersText(schedule.parameters, schedule.export_type, zone), mail?.length && t("page.schedules.mail_to", { addresses: mail.map(shown).join(", ") }), destination && t("page.schedules.sent_to", { destination: destinationOf(destination) })];
    return element(
      "li",
      { id: `schedule-${schedule.id}`, class: "job", "data-status": active ? "active" : "paused", tabindex: -1 },
      element(
        "div",
        { class: "heading" },
        element("h3", {}, `${schedule.name ?? titleOf(schedule.export_type)} `, element("span", { class: "kind" }, [schedule.name && titleOf(schedule.export_type), formatName(schedule.format)].filter(Boolean).join(" · "))),
        element("span", { class: "state" }, active ? t("page.schedules.active") : t("page.schedules.paused")),
      ),
      element("p", {}, sentence(rhythm(schedule))),
      element("p", { class: "hint" }, [whose, last && t("page.schedules.last_ran", { time: moment(last) }), ...facts].filter(Boolean).join(" · ")),
      active && next.length > 0 &&
        element("div", { class: "next" }, element("span", { class: "hint", "aria-hidden": "true" }, t("page.schedules.next_runs")), element("ol", { class: "runs", "aria-label": t("page.schedules.next_runs") }, next.map((time) => element("li", {}, runTime(time, schedule.timezone))))),
      element("p", { class: "error", hidden: active ? !schedule.failures : !schedule.paused_reason }, sentence((active ? failuresText(schedule) : pausedText(schedule)) ?? "")),
      this.history(`${path}/runs?limit=10`, schedule.timezone),
      problem,
      element(
        "p",
        { class: "buttons" },
        does(t("page.schedules.run"), async () => this.ran(await post(`${path}:run`))),
        active
          ? does(t("page.schedules.pause"), () => change("PATCH", { active: false }))
          : does(t("page.schedules.resume"), () => change("PATCH", { active: true })),
        button(t("page.schedules.edit"), () => this.edit(schedule)),
        button(t("page.schedules.copy"), () => this.copy(schedule)),
        confirmButton(t("page.schedules.delete"), t("page.schedules.delete_question"), (pressed) => busy(pressed, problem, () => change("DELETE"))),
      ),
    );
  }
}

/** How often a schedule that goes on has failed. */
const failuresText = ({ failures: count }) => count && t("page.schedules.failures", { count });

/** Why the service has paused a schedule. */
function pausedText({ paused_reason: message, paused_code: code, failures: count }) {
  if (language !== "en" && code === "repeated_failures") return t("page.schedules.paused_after", { count });
  return message && problemText({ code, message });
}

function outcome({ run_at: at, status: end, row_count: count, file_size: bytes, error, window, cancel_requested: removed }, zone) {
  const state = end === "expired" && removed ? "removed" : end;
  const ready = end === "completed" || end === "expired";
  const facts = [window && windowText(window), ready && rows(count ?? 0), ready && bytes !== null && size(bytes)];
  return [t("page.schedules.outcome", { time: runTime(at, zone), status: status(state) }), ...facts, error && problemText(error)].filter(Boolean).join(" · ");
}
