// The view for those who operate the service. It is loaded for them only, and read again every few seconds.

import { call, post } from "./api.js";
import { DeadLetters } from "./dead_letters.js";
import { destinationTests } from "./destination_tests.js";
import { busy, button, byId, choice, confirmButton, element, errorMessage, field, focusIfIdle, nameWith, showMessage, showRecoverableError } from "./dom.js";
import { update } from "./live_list.js";
import { has, t } from "./messages.js";
import { OperatorJobs, reason } from "./operator_jobs.js";
import { clockTime, count, duration, formatName, moment, sentence } from "./words.js";

const INTERVAL = 5000; // milliseconds between two readings
const PLACE = "#operations";
const EVERYTHING = "everything";

const styles = element("link", { rel: "stylesheet", href: new URL("./operations.css", import.meta.url).href });
document.head.append(styles);
// The view works without its styles, so an error does not end the wait with an error.
await new Promise((loaded) => {
  styles.onload = styles.onerror = loaded;
});

const title = (key) => element("h3", {}, key);

export class Operations {
  constructor(user) {
    this.user = user;
    this.section = byId("operations");
    this.link = byId("to-operations");
    this.problem = errorMessage();
    this.news = element("p", { class: "hint", role: "status" });
    this.updated = element("p", { class: "hint" });
    this.tiles = element("dl", { class: "tiles" });
    this.parts = element("ul", { class: "badges", "aria-label": t("page.operations.parts") });
    this.pauses = element("ul", { class: "rows", "aria-label": t("page.operations.pauses") });
    this.workers = element("ul", { class: "rows", "aria-label": t("page.operations.workers") });
    this.schedules = element("ul", { class: "rows", "aria-label": t("page.operations.schedules") });
    this.noSchedules = element("p", { class: "hint" }, t("page.operations.no_failing_schedules"));
    this.noWorkers = element("p", { class: "error", hidden: true }, t("page.operations.no_workers"));
    this.noPauses = element("p", { class: "hint" }, t("page.operations.nothing_paused"));
    this.lost = element("ul", { class: "rows", "aria-label": t("page.operations.lost") });
    this.noLost = element("p", { class: "hint" }, t("page.operations.nothing_lost"));
    this.jobs = new OperatorJobs(user);
    this.letters = new DeadLetters(user);
    this.section.replaceChildren(
      element("div", {}, element("div", { class: "heading" }, element("h2", { id: "operations-title" }, t("page.operations.title")), this.updated), this.problem, this.news),
      this.tiles,
      this.parts,
      element("section", {}, title(t("page.operations.pauses")), this.noPauses, this.pauses, this.pauseForm()),
      element("section", {}, title(t("page.operations.workers")), this.noWorkers, this.workers),
      element("section", {}, title(t("page.operations.schedules")), this.noSchedules, this.schedules),
      element("section", {}, title(t("page.operations.lost")), this.noLost, this.lost),
      this.letters.element,
      this.doctor(),
      destinationTests(),
      this.jobs.element,
    );
    this.onhash = () => this.show();
  }

  start() {
    this.link.hidden = false;
    addEventListener("hashchange", this.onhash);
    this.show();
  }

  stop() {
    this.link.hidden = true;
    removeEventListener("hashchange", this.onhash);
    this.rest();
    this.section.hidden = true;
  }

  /** Show this view instead of the others while the address names it. */
  show() {
    const on = location.hash === PLACE;
    this.rest();
    if (!byId("sign-in").hidden) return; // the user signs in again
    this.section.hidden = !on;
    byId("desk").hidden = on;
    if (on) this.link.setAttribute("aria-current", "page");
    else this.link.removeAttribute("aria-current");
    if (!on) return;
    this.section.focus({ preventScroll: true });
    scrollTo(0, 0);
    this.follow({});
  }

  /** Read the view again and again until `rest`: each time when the answer before has come. `turn`: an object of its own. */
  async follow(turn) {
    this.following = turn;
    if (!document.hidden) await this.load();
    if (turn === this.following) this.timer = setTimeout(() => this.follow(turn), INTERVAL);
  }

  rest() {
    this.following = null;
    clearTimeout(this.timer);
  }

  async load() {
    const [overview, jobs] = await Promise.allSettled([call("GET", "exports/operations", { attempts: 1 }), this.jobs.reload()]);
    const unshown = overview.value && !this.section.hidden && this.fill(overview.value);
    const failure = overview.reason ?? jobs.reason ?? unshown;
    if (!failure) showMessage(this.problem, "");
    else if (failure.status !== 401) showRecoverableError(this.problem, failure);
  }

  /** Returns the error of an item that cannot be shown. */
  fill(seen) {
    const failures = [];
    const put = (...list) => failures.push(update(...list));
    this.updated.textContent = t("page.operations.updated", { time: clockTime(seen.now) });
    const late = seen.schedules.late + seen.schedules.failing + seen.schedules.paused_by_service;
    const tiles = [
      [t("page.operations.tiles.waiting"), count(seen.pending)],
      [t("page.operations.tiles.oldest"), seen.pending ? duration(seen.oldest_seconds) : "–", seen.oldest_seconds > 600],
      [t("page.operations.tiles.running"), count(seen.processing)],
      [t("page.operations.tiles.slots"), t("page.operations.of", { used: seen.slots_running, all: seen.slots }), seen.slots === 0],
      [t("page.operations.tiles.deliveries"), count(seen.deliveries.waiting)],
      [t("page.operations.tiles.deliveries_failed"), count(seen.deliveries.failed), seen.deliveries.failed > 0],
      [t("page.operations.tiles.schedules"), count(late), late > 0],
    ];
    put(this.tiles, tiles, ([name]) => name, ([name, value, bad]) => element("div", { class: bad ? "bad" : "" }, element("dt", {}, name), element("dd", {}, value)));
    const parts = [...Object.entries(seen.parts).map(([name, state]) => [named(name), state]), ...Object.entries(seen.sources).map(([name, state]) => [t("page.operations.source", { name }), state])];
    put(this.parts, parts, ([name]) => name, ([name, state]) => element("li", { class: state === "unavailable" ? "bad" : "" }, t("page.operations.part", { name, state: stateOf(state) })));
    put(this.pauses, seen.pauses, (pause) => pause.scope, (pause) => this.pause(pause));
    this.noPauses.hidden = seen.pauses.length > 0;
    put(this.workers, seen.workers, (worker) => worker.name, worker);
    this.noWorkers.hidden = seen.workers.some((one) => !one.is_silent);
    put(this.schedules, seen.failing_schedules, (schedule) => schedule.id, (schedule) => this.failing(schedule));
    put(this.lost, seen.lost_deliveries, ({ export_job_id: id, channel, finished_at: at }) => `${id} ${channel} ${at}`, lost);
    this.noLost.hidden = seen.lost_deliveries.length > 0;
    this.noSchedules.hidden = seen.failing_schedules.length > 0;
    this.offer(seen);
    return failures.find(Boolean);
  }

  /** Offer what can be paused. The choice stays. */
  offer({ sources, datasets }) {
    const scopes = [EVERYTHING, ...Object.keys(sources).map((name) => `source:${name}`), ...datasets.map((name) => `dataset:${name}`)];
    const text = scopes.join();
    if (this.offered === text) return;
    this.offered = text;
    const chosen = this.scope.value || EVERYTHING;
    this.scope.replaceChildren(...scopes.map((scope) => element("option", { value: scope }, scopeName(scope))));
    this.scope.value = scopes.includes(chosen) ? chosen : EVERYTHING;
    this.jobs.offer(datasets);
  }

  pauseForm() {
    this.scope = choice([[EVERYTHING, t("page.operations.everything")]]);
    const reason = element("input", { maxLength: 500 });
    const problem = errorMessage();
    const pause = confirmButton(t("page.operations.pause"), t("page.operations.pause_question"), (pressed) =>
      busy(pressed, problem, async () => {
        const { value: scope } = this.scope;
        const { value: text } = reason;
        await call("POST", "exports/pauses", { body: { scope, reason: text.trim() || null } });
        if (reason.value === text) reason.value = "";
        this.say(t("page.operations.paused", { scope: scopeName(scope) }));
      }));
    pause.classList.replace("quiet", "soft");
    const fields = element("div", { class: "choices" }, field(t("page.operations.what"), this.scope), field(t("page.operations.reason"), reason), pause);
    return element("details", {}, element("summary", {}, t("page.operations.pause_claims")), element("p", { class: "hint" }, t("page.operations.pause_about")), fields, problem);
  }

  pause(pause) {
    const problem = errorMessage();
    const resume = button(t("page.operations.resume"), (pressed) =>
      busy(pressed, problem, async () => {
        await call("DELETE", `exports/pauses?scope=${encodeURIComponent(pause.scope)}`);
        focusIfIdle(this.section);
        this.say(t("page.operations.resumed", { scope: scopeName(pause.scope) }));
      }));
    const facts = [t("page.operations.paused_by", { user: pause.paused_by, time: moment(pause.paused_at) }), pause.reason];
    const name = element("h4", {}, scopeName(pause.scope));
    nameWith(resume, name);
    return element("li", { class: "job" }, name, element("p", { class: "hint" }, facts.filter(Boolean).join(" · ")), problem, element("p", { class: "buttons" }, resume));
  }

  failing({ id, export_type: dataset, format: kind, user_id: user, active, failures, last_run: last, next_run: next, last_job_id: job, error_code: code, error }) {
    const problem = errorMessage();
    const name = element("h4", {}, `${dataset} `, element("span", { class: "kind" }, formatName(kind)));
    const whose = element("span", {}, t("page.operations.user", { user }));
    const number = element("code", {}, id);
    const again = button(t("page.operations.rerun_last"), (pressed) =>
      busy(pressed, problem, async () => {
        await post(`exports/jobs/${job}:rerun`);
        await this.say(t("page.operations.rerun_done", { dataset, user }));
      }));
    const resume = button(t("page.operations.resume"), (pressed) =>
      busy(pressed, problem, async () => {
        await call("PATCH", `exports/schedules/${id}`, { body: { active: true } });
        await this.say(t("page.operations.resumed", { scope: dataset }));
      }));
    resume.hidden = active || !this.user.admin;
    for (const own of [again, resume]) nameWith(own, name, whose, number);
    const facts = [last && t("page.operations.last_run", { time: moment(last) }), next && t("page.operations.next_run", { time: moment(next) })];
    return element(
      "li",
      { class: "job", "data-status": "failed" },
      element("div", { class: "heading" }, name, element("span", { class: "state" }, active ? t("page.operations.failures", { count: failures }) : t("page.operations.paused_after", { count: failures }))),
      element("p", { class: "hint" }, whose, [" ", ...facts].filter(Boolean).join(" · ")),
      element("p", { class: "hint" }, number),
      element("p", { class: "error", hidden: !code }, code && reason({ code, message: error }, false)),
      element("p", { class: "hint", hidden: active || this.user.admin }, t("page.operations.resumed_by_others")),
      problem,
      element("p", { class: "buttons" }, job && again, resume),
    );
  }

  /** What doctor says. It is read when it is opened. */
  doctor() {
    const list = element("ul", { class: "rows" });
    const problem = errorMessage();
    const summary = element("p", { class: "hint", role: "status" });
    const show = async () => {
      const { findings } = await call("GET", "exports/operations/doctor");
      const bad = findings.filter(({ state }) => state !== "ok").sort((one, other) => (one.state < other.state ? -1 : 1));
      const unshown = update(list, bad, ({ area, check }) => `${area} ${check}`, finding);
      summary.textContent = t("page.operations.doctor_fine", { count: findings.length - bad.length });
      if (unshown) throw unshown;
    };
    const again = button(t("page.operations.check_again"), (pressed) => busy(pressed, problem, show));
    const ontoggle = ({ currentTarget }) => currentTarget.open && busy(list, problem, show);
    return element("details", { ontoggle }, element("summary", {}, t("page.operations.doctor")), element("p", { class: "hint" }, t("page.operations.doctor_about")), problem, list, summary, element("p", { class: "buttons" }, again));
  }

  say(text) {
    this.news.textContent = text;
    return this.load();
  }
}

const named = (name) => (has(`page.operations.names.${name}`) ? t(`page.operations.names.${name}`) : name);
const areaOf = (name) => (has(`page.operations.areas.${name}`) ? t(`page.operations.areas.${name}`) : name);

function checkOf(check) {
  const name = check.replaceAll(" ", "_");
  return has(`page.operations.checks.${name}`) ? t(`page.operations.checks.${name}`) : check;
}

const stateOf = (name) => (has(`page.operations.states.${name}`) ? t(`page.operations.states.${name}`) : name);

function scopeName(scope) {
  const [kind, ...rest] = scope.split(":");
  const name = rest.join(":");
  if (kind === "source") return t("page.operations.source", { name });
  if (kind === "user") return t("page.operations.user", { user: name });
  return kind === "dataset" ? t("page.operations.dataset", { name }) : t("page.operations.everything");
}

function worker({ name, slots, running, version, started_at: started, seen_at: seen, is_silent: silent }) {
  const facts = [t("page.operations.version", { version }), t("page.operations.since", { time: moment(started) })];
  return element(
    "li",
    { class: "job", "data-status": silent ? "failed" : "active" },
    element("div", { class: "heading" }, element("h4", {}, name), element("span", { class: "state" }, silent ? t("page.operations.silent", { time: moment(seen) }) : t("page.operations.slots_used", { used: running, all: slots }))),
    element("p", { class: "hint" }, facts.join(" · ")),
  );
}

function lost({ export_job_id: job, user_id: user, channel, status: state, attempts, finished_at: at }) {
  const facts = [t("page.operations.user", { user }), at && moment(at), t("page.operations.tried", { count: attempts })];
  return element(
    "li",
    { class: "job", "data-status": "failed" },
    element("div", { class: "heading" }, element("h4", {}, has(`page.operations.channels.${channel}`) ? t(`page.operations.channels.${channel}`) : channel), element("span", { class: "state" }, t(`page.operations.delivery_states.${state}`))),
    element("p", { class: "hint" }, facts.filter(Boolean).join(" · ")),
    element("p", { class: "hint" }, element("code", {}, job)),
  );
}

/** A finding in the language of the page. A text of a newer service, which the page does not know, is English. */
function finding({ area, check, state, what, advice, code, values }) {
  const told = (part, own) => (has(`findings.${code}.${part}`) ? sentence(t(`findings.${code}.${part}`, values)) : own);
  return element(
    "li",
    { class: "job", "data-status": state === "problem" ? "failed" : "" },
    element("div", { class: "heading" }, element("h4", {}, t("page.operations.part", { name: areaOf(area), state: checkOf(check) })), element("span", { class: "state" }, stateOf(state))),
    element("p", {}, told("what", what)),
    element("p", { class: "hint" }, told("advice", advice)),
  );
}
