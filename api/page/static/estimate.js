// The line of the form that says how large the export will be, and why it cannot be made.

import { call } from "./api.js";
import { clearOnRecovery } from "./connection.js";
import { element } from "./dom.js";
import { windowText } from "./filter_texts.js";
import { language, t } from "./messages.js";
import { rows, sentence, size } from "./words.js";

const PAUSE = 350; // milliseconds without a change, after which an estimate is asked for
const REFUSED = new Set([403, 422]); // statuses of an estimate that every try would have

export class EstimateLine {
  /** `builder` is the form. */
  constructor(builder) {
    this.builder = builder;
    this.element = element("p", { class: "estimate", role: "status" });
    this.timer = 0;
    this.changes = 0; // how often the form was changed
    this.asked = null; // the last call, and the change that it was for
    this.isUnknown = false; // whether the service did not answer
    this.refusal = ""; // why the form must not be sent
  }

  /** The form has changed: ask again after a pause. */
  restart() {
    this.changes += 1;
    this.setRefusal("");
    clearTimeout(this.timer);
    this.calling?.abort();
    this.timer = setTimeout(() => this.ask(), PAUSE);
  }

  /** Ask for the estimate of what the form has, once for each change. Return whether there was an answer, or an error. */
  ask() {
    clearTimeout(this.timer);
    if (this.asked?.changes !== this.changes) this.asked = { changes: this.changes, answer: this.requestEstimate() };
    return this.asked.answer;
  }

  async requestEstimate() {
    this.setRefusal("");
    this.isUnknown = false;
    if (!this.builder.isComplete) {
      this.show("");
      return true;
    }
    const calling = (this.calling = new AbortController());
    try {
      const [path, body] = this.builder.estimateCall();
      this.showAnswer(await call("POST", path, { body, signal: calling.signal }));
    } catch (failure) {
      if (failure.name === "AbortError") {
        if (!calling.signal.aborted) this.asked = null; // the session has ended, and the form waits for the next one
        return false;
      }
      this.showFailure(failure);
    }
    return true;
  }

  showAnswer(answer) {
    const isEmpty = answer.exact && !answer.rows && !this.builder.repeat.active;
    const note = isEmpty ? t("page.form.no_rows") : "";
    const reason = answer.fits ? note : refusalText(answer);
    const estimate = amountText(answer);
    this.show(reason ? t("page.form.estimate_and_reason", { estimate, reason }) : estimate, Boolean(reason));
    this.setRefusal(!answer.fits && (answer.exact || answer.at_least) ? reason : "");
  }

  showFailure(failure) {
    this.isUnknown = failure.away;
    if (failure.away) this.asked = null; // it is asked for again when the service is back
    this.builder.markField(failure);
    this.show(failure.message, true);
    if (failure.away) clearOnRecovery(this.element, this.element.textContent);
    if (REFUSED.has(failure.status)) this.setRefusal(failure.message);
  }

  show(text, wrong = false) {
    this.element.textContent = sentence(text);
    this.element.classList.toggle("wrong", wrong);
  }

  /** Refuse to send what cannot work, with the reason; an empty text allows it. */
  setRefusal(reason) {
    this.refusal = reason;
    this.builder.submit.ariaDisabled = reason ? "true" : null; // not disabled: that would take away the focus
  }
}

/** How many rows, how many bytes and which days an export will have. */
function amountText({ rows: number, bytes, exact, at_least, window }) {
  const precision = exact ? "exact" : at_least ? "at_least" : "about";
  const shown = t(`page.form.${precision}_rows`, { rows: rows(number) });
  const whole = bytes === null ? shown : t("page.form.size", { rows: shown, size: size(bytes) });
  return window ? t("page.form.of_window", { estimate: whole, window: windowText(window) }) : whole;
}

/** Why an export is too large. The service's own words are English. */
function refusalText({ reason, row_limit: limit }) {
  return language === "en" || !limit ? reason : t("page.form.too_many_rows", { rows: rows(limit) });
}
