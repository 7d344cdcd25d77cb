// Messages that could not be read: look at them, redrive them, discard them.

import { call, parse } from "./api.js";
import { busy, button, choice, confirmButton, element, errorMessage, field, focusIfIdle, nameWith, runAgainIfRequested } from "./dom.js";
import { update } from "./live_list.js";
import { t } from "./messages.js";
import { moment, size } from "./words.js";

const STATES = ["new", "redriving", "redriven", "discarded"];
const MARK = "\ue000"; // of numbers that a browser would round: a character that no message has
const LARGE_NUMBER = new RegExp(`"${MARK}(-?\\d+)"`, "g");
const nameOf = (state) => t(`page.dead_letters.states.${state}`);

export class DeadLetters {
  constructor(user) {
    this.user = user;
    this.list = element("ul", { class: "rows", "aria-label": t("page.dead_letters.title") });
    this.none = element("p", { class: "hint", hidden: true }, t("page.dead_letters.none"));
    this.problem = errorMessage();
    this.news = element("p", { class: "hint", role: "status" });
    const show = () => this.load();
    this.state = choice([...STATES.map((state) => [state, nameOf(state)]), ["", t("page.operations.any")]], { onchange: () => runAgainIfRequested(this.list, this.problem, show) });
    const again = button(t("page.dead_letters.read_again"), (pressed) => busy(pressed, this.problem, show));
    const ontoggle = ({ currentTarget }) => currentTarget.open && runAgainIfRequested(this.list, this.problem, show);
    this.element = element(
      "details",
      { ontoggle },
      element("summary", {}, t("page.dead_letters.title")),
      element("p", { class: "hint" }, t("page.dead_letters.about")),
      element("div", { class: "choices" }, field(t("page.dead_letters.state"), this.state), again),
      this.problem,
      this.news,
      this.list,
      this.none,
    );
  }

  async load() {
    const { value: state } = this.state;
    const { total, dead_letters: letters } = await call("GET", `exports/dead-letters?limit=50${state && `&state=${state}`}`);
    if (state !== this.state.value) return; // another one is wanted now
    const unshown = update(this.list, letters, (letter) => letter.id, (letter) => this.card(letter));
    this.none.hidden = letters.length > 0;
    this.news.textContent = total > letters.length ? t("page.dead_letters.shown", { count: letters.length, total }) : "";
    if (unshown) throw unshown;
  }

  card(letter) {
    const problem = errorMessage();
    const content = element("pre", { class: "content", tabIndex: 0, hidden: true, "aria-label": t("page.dead_letters.content") });
    const name = element("h4", {}, t("page.dead_letters.name", { topic: letter.topic, partition: letter.partition, offset: letter.offset }));
    const handled = letter.state !== "new";
    const act = (action) => (pressed) =>
      busy(pressed, problem, async () => {
        const body = { letters: [{ id: letter.id, at: letter.at }], again: handled };
        const { results: [result] } = await call("POST", `exports/dead-letters:${action}`, { body });
        if (result.problem) throw new Error(result.problem);
        focusIfIdle(this.state); // a card with the focus stays as it is
        await this.load();
        this.news.textContent = t(`page.dead_letters.done.${action}`);
      });
    const buttons = [
      this.user.admin &&
        button(t("page.dead_letters.look"), (pressed) =>
          busy(pressed, problem, async () => {
            const { key, headers, value } = await call("GET", `exports/dead-letters/${letter.id}`);
            content.textContent = JSON.stringify({ key, headers, value: parsed(value) }, null, 2).replace(LARGE_NUMBER, "$1");
            content.hidden = false;
          })),
      confirmButton(handled ? t("page.dead_letters.redrive_again") : t("page.dead_letters.redrive"), t("page.dead_letters.redrive_question"), act("redrive")),
      letter.state !== "discarded" && confirmButton(t("page.dead_letters.discard"), t("page.dead_letters.discard_question"), act("discard")),
    ].filter(Boolean);
    const when = element("span", {}, moment(letter.at));
    for (const own of buttons) nameWith(own, name, when);
    const facts = ["", size(letter.bytes), letter.job_id && t("page.dead_letters.job", { id: letter.job_id }), letter.handled_by && t("page.dead_letters.handled", { user: letter.handled_by, time: moment(letter.handled_at) })];
    return element(
      "li",
      { class: "job", "data-status": letter.state === "new" ? "failed" : "" },
      element("div", { class: "heading" }, name, element("span", { class: "state" }, nameOf(letter.state))),
      element("p", { class: "error" }, letter.error),
      element("p", { class: "hint" }, when, [" ", ...facts].filter(Boolean).join(" · ")),
      content,
      problem,
      element("p", { class: "buttons" }, buttons),
    );
  }
}

function parsed(value) {
  try {
    return parse(value, MARK);
  } catch {
    return value;
  }
}
