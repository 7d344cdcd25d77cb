// The card of an export in the list.

import { call, post } from "./api.js";
import { busy, button, byId, canMoveFocus, confirmButton, element, errorMessage, showMessage, showRecoverableError } from "./dom.js";
import { Password } from "./encryption.js";
import { FileList, download, several } from "./files.js";
import { filtersText } from "./filter_texts.js";
import { destinationModule, titleOf } from "./labels.js";
import { problemText, t } from "./messages.js";
import { PAGE, now } from "./session.js";
import { date, duration, formatName, moment, rows, scopeText, sentence, size, status, warnings } from "./words.js";

const READING = 20_000; // milliseconds for which the text about a copied link is shown
const UNFINISHED = new Set(["pending", "processing"]);

/** One export. Its elements and the places of its buttons stay, so no focus and no click is lost. */
export class JobCard {
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

  get isUnfinished() {
    return UNFINISHED.has(this.job.status);
  }

  show(job) {
    const before = this.job;
    if (before && compareKey(before) > compareKey(job)) return; // an answer that was overtaken
    this.job = job;
    this.seen = now();
    const open = this.isUnfinished;
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
