// Destinations of finished files: the field of the form, and the state of a delivery on the card of a job.

import { call } from "./api.js";
import { byId, element, field, showMessage } from "./dom.js";
import { destinationOf, labelOf } from "./labels.js";
import { has, t } from "./messages.js";
import { size } from "./words.js";

const FIRST_PAUSE = 1500; // milliseconds between two readings of a delivery
const LONGEST_PAUSE = 60_000;
const UNFINISHED = new Set(["pending", "sending"]);

/** The field of the form. It is hidden while the dataset can be sent nowhere. */
export class DestinationField {
  constructor(destinations) {
    this.all = destinations;
    this.select = element("select");
    this.element = field(t("page.destinations.send_to"), this.select, t("page.destinations.hint"));
  }

  /** Offer where the dataset can be sent to. */
  use(dataset) {
    const before = this.select.value;
    const offered = this.all.filter(({ datasets }) => !datasets || datasets.includes(dataset.name));
    const options = offered.map((one) => element("option", { value: one.name }, labelOf(one)));
    this.select.replaceChildren(element("option", { value: "" }, t("page.destinations.none")), ...options);
    this.write(before);
    this.element.hidden = !offered.length;
  }

  read() {
    return this.select.value;
  }

  /** Choose a destination; return whether it is offered. */
  write(name) {
    this.select.value = name ?? "";
    const found = this.select.selectedIndex >= 0;
    if (!found) this.select.value = "";
    return found;
  }
}

/** How far the files of a job are sent, in `place`. A delivery is read again until it has ended. */
export class DeliveryState {
  constructor(place, { operator }) {
    this.operator = operator;
    this.text = element("p", { class: "hint" });
    this.problem = element("p", { class: "error", hidden: true });
    place.append(this.text, this.problem);
    this.pause = FIRST_PAUSE;
  }

  show(job) {
    this.job = job;
    const ended = job.status === "completed" || job.status === "expired";
    this.text.hidden = !ended && job.status !== "pending" && job.status !== "processing";
    if (!ended) this.text.textContent = t("page.destinations.planned", this.words);
    else if (!this.reading) this.reading = this.read();
  }

  get words() {
    return { destination: destinationOf(this.job.destination) };
  }

  async read() {
    do {
      if (await this.ended()) return;
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      this.pause = Math.min(this.pause * 1.5, LONGEST_PAUSE);
    } while (this.text.isConnected);
  }

  /** Read the delivery once. Return whether nothing more will come. */
  async ended() {
    try {
      const { deliveries } = await call("GET", `exports/jobs/${this.job.export_job_id}/deliveries`, { attempts: 1 });
      const own = deliveries.find(({ channel }) => channel === "destination");
      if (own) this.tell(own);
      return own && !UNFINISHED.has(own.status);
    } catch (failure) {
      return !(failure.away || failure.status >= 500); // the session has ended, or the job is gone
    }
  }

  tell({ status, path, reason, files_sent: files, bytes_sent: sent, attempts }) {
    const { words, job } = this;
    const failed = !UNFINISHED.has(status) && status !== "sent";
    const key = failed ? "failed" : status === "sent" ? (path ? "sent_as" : "sent") : status === "sending" && sent ? "sending" : "waiting";
    const text = t(`page.destinations.${key}`, { ...words, path, sent: size(sent ?? 0), size: size(job.file_size ?? 0) });
    const changed = this.status && this.status !== status;
    this.status = status;
    this.text.textContent = text;
    const advice = failed ? this.advice : attempts ? t("page.destinations.retried") : "";
    showMessage(this.problem, reason && status !== "sent" ? `${this.shown(reason)}. ${advice}` : failed ? advice : "");
    if (changed && status !== "pending" && status !== "sending") byId("news").textContent = text;
  }

  get advice() {
    return this.operator ? t("page.destinations.resend", { job: this.job.export_job_id }) : t("page.destinations.ask");
  }

  /** The service's reason, in the language of the page if it is a known one. The advice in it is for operators. */
  shown(reason) {
    const [own] = reason.split("; operators:");
    const known = own.replaceAll(/[^a-z]+/g, "_");
    const text = has(`page.destinations.reasons.${known}`) ? t(`page.destinations.reasons.${known}`) : own;
    return this.operator ? text + reason.slice(own.length) : text;
  }
}
