// Schedules: what repeats, and when next.

import { call } from "./api.js";
import { busy, byId, h, say, twice } from "./dom.js";
import { rhythm } from "./repeat.js";
import { filters, moment, run } from "./words.js";

const WINDOWS = { previous_period: "rows of the period before", since_last_run: "rows since the run before" };

export class Schedules {
  constructor({ ran }) {
    this.ran = ran;
    this.list = byId("schedule-list");
    this.problem = byId("schedules-problem");
  }

  async load() {
    try {
      const { schedules } = await call("GET", "exports/schedules");
      this.list.replaceChildren(...schedules.map((schedule) => this.card(schedule)));
      byId("no-schedules").hidden = schedules.length > 0;
      say(this.problem, "");
    } catch (failure) {
      if (failure.status !== 401) say(this.problem, failure.message);
    }
  }

  stop() {
    this.list.replaceChildren();
  }

  card(schedule) {
    const path = `exports/schedules/${schedule.id}`;
    const problem = h("p", { class: "alert", role: "alert", hidden: true });
    const button = (text, act) =>
      h("button", { type: "button", class: "quiet", onclick: (event) => busy(event.currentTarget, problem, act) }, text);
    const change = async (method, body) => {
      await call(method, path, { body });
      await this.load();
      byId("schedules").focus({ preventScroll: true });
    };
    const { active, next_runs: next = [], last_run: last, email_recipients: mail } = schedule;
    const facts = [WINDOWS[schedule.window], filters(schedule.filters), mail?.length && `mail to ${mail.join(", ")}`];
    return h(
      "li",
      { class: "job", "data-status": active ? "active" : "paused" },
      h(
        "div",
        { class: "heading" },
        h("h3", {}, `${schedule.export_type} `, h("span", { class: "kind" }, schedule.format)),
        h("span", { class: "state" }, active ? "Active" : "Paused"),
      ),
      h("p", {}, rhythm(schedule)),
      h("p", { class: "hint" }, [last && `last ran ${moment(last)}`, ...facts].filter(Boolean).join(" · ")),
      active && next.length > 0 &&
        h("ol", { class: "runs", "aria-label": "Next runs" }, next.map((time) => h("li", {}, run(time, schedule.timezone)))),
      problem,
      h(
        "p",
        { class: "buttons" },
        button("Run now", async () => this.ran(await call("POST", `${path}/run`))),
        active
          ? button("Pause", () => change("PATCH", { active: false }))
          : button("Resume", () => change("PATCH", { active: true })),
        twice("Delete", "Delete the schedule?", (pressed) => busy(pressed, problem, () => change("DELETE"))),
      ),
    );
  }
}
