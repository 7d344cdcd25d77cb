// The list of schedules with their next runs.

import { call } from "./api.js";
import { alert, busy, button, byId, h, nameButtons, report, say, twice } from "./dom.js";
import { titleOf } from "./labels.js";
import { has, problemText, t } from "./messages.js";
import { rhythm } from "./repeat.js";
import { duration, filters, format, moment, rows, run, scopeText, sentence, size, status } from "./words.js";

const rowsOf = (window) => has(`page.schedules.windows.${window}`) && t(`page.schedules.windows.${window}`);

export class Schedules {
  constructor(user, { ran }) {
    this.user = user;
    this.ran = ran;
    this.list = byId("schedule-list");
    this.problem = byId("schedules-problem");
    this.older = byId("older-schedules");
    this.older.onclick = () => busy(this.older, this.problem, () => this.more());
  }

  async load() {
    try {
      this.cursor = null;
      await this.more();
      byId("no-schedules").hidden = this.list.childElementCount > 0;
      say(this.problem, "");
    } catch (failure) {
      if (failure.status !== 401) report(this.problem, failure);
    }
  }

  async more() {
    const page = await call("GET", `exports/schedules?limit=20${this.cursor ? `&cursor=${this.cursor}` : ""}`);
    const cards = page.schedules.map((schedule) => nameButtons(this.card(schedule), rhythm(schedule)));
    if (this.cursor) this.list.append(...cards);
    else this.list.replaceChildren(...cards);
    this.cursor = page.next_cursor;
    this.older.hidden = !this.cursor;
  }

  stop() {
    this.list.replaceChildren();
  }

  /** The last runs, which are read each time the list is opened. */
  history(path, zone) {
    const list = h("ol", { class: "history", "aria-label": t("page.schedules.past_runs") });
    const problem = alert();
    const show = async () => {
      const { runs } = await call("GET", path);
      list.replaceChildren(...runs.map((one) => h("li", {}, outcome(one, zone))));
      if (!runs.length) list.append(h("li", {}, t("page.schedules.no_runs")));
    };
    const ontoggle = ({ currentTarget: own }) => own.open && busy(list, problem, show);
    return h("details", { ontoggle }, h("summary", {}, t("page.schedules.past_runs")), list, problem);
  }

  card(schedule) {
    const path = `exports/schedules/${schedule.id}`;
    const problem = alert();
    const does = (text, act) => button(text, (pressed) => busy(pressed, problem, act));
    const change = async (method, body) => {
      await call(method, path, { body });
      await this.load();
      byId("schedules").focus({ preventScroll: true });
    };
    const shown = (address) => (schedule.unsubscribed?.includes(address) ? t("page.schedules.unsubscribed", { address }) : address);
    const { active, next_runs: next = [], last_run: last, email_recipients: mail } = schedule;
    const whose = schedule.user_id === this.user.id ? null : t("page.schedules.for_user", { user: schedule.user_id });
    const zone = schedule.options?.timezone ?? schedule.timezone;
    const facts = [scopeText(schedule.scope), rowsOf(schedule.window), filters(schedule.filters, zone), filters(schedule.parameters, zone), mail?.length && t("page.schedules.mail_to", { addresses: mail.map(shown).join(", ") })];
    return h(
      "li",
      { class: "job", "data-status": active ? "active" : "paused" },
      h(
        "div",
        { class: "heading" },
        h("h3", {}, `${titleOf(schedule.export_type)} `, h("span", { class: "kind" }, format(schedule.format))),
        h("span", { class: "state" }, active ? t("page.schedules.active") : t("page.schedules.paused")),
      ),
      h("p", {}, sentence(rhythm(schedule))),
      h("p", { class: "hint" }, [whose, last && t("page.schedules.last_ran", { time: moment(last) }), ...facts].filter(Boolean).join(" · ")),
      active && next.length > 0 &&
        h("ol", { class: "runs", "aria-label": t("page.schedules.next_runs") }, next.map((time) => h("li", {}, run(time, schedule.timezone)))),
      h("p", { class: "error", hidden: active || !schedule.paused_reason }, sentence(schedule.paused_reason ?? "")),
      this.history(`${path}/runs?limit=10`, schedule.timezone),
      problem,
      h(
        "p",
        { class: "buttons" },
        does(t("page.schedules.run"), async () => this.ran(await call("POST", `${path}:run`))),
        active
          ? does(t("page.schedules.pause"), () => change("PATCH", { active: false }))
          : does(t("page.schedules.resume"), () => change("PATCH", { active: true })),
        twice(t("page.schedules.delete"), t("page.schedules.delete_question"), (pressed) => busy(pressed, problem, () => change("DELETE"))),
      ),
    );
  }
}

function outcome({ run_at: at, status: end, row_count: count, file_size: bytes, seconds, error }, zone) {
  const facts = [count !== null && rows(count), bytes !== null && size(bytes), seconds !== null && duration(seconds)];
  return [t("page.schedules.outcome", { time: run(at, zone), status: status(end) }), ...facts, error && problemText(error)].filter(Boolean).join(" · ");
}
