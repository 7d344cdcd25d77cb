// Several files of one export: the part of the form that asks for them, and the list of a finished export.

import { call } from "./api.js";
import { busy, button, choice, element, field, showButton } from "./dom.js";
import { t } from "./messages.js";
import { rows, size } from "./words.js";

const MEGABYTE = 1e6;
const LEAST = 2; // megabytes: the service takes 1 MiB

/** The part of the form. */
export class Division {
  constructor() {
    this.by = choice([["", t("page.files.single")], ["rows", t("page.files.by_rows")], ["bytes", t("page.files.by_bytes")]], { onchange: () => this.show() });
    this.number = element("input", { type: "number", required: true, step: 1 });
    this.numberField = field(t("page.files.rows"), this.number);
    this.summary = element("span");
    this.element = element("details", {}, element("summary", {}, t("page.files.title"), this.summary), element("div", { class: "pair" }, field(t("page.files.divide"), this.by), this.numberField));
    this.show();
  }

  show() {
    const by = this.by.value;
    this.numberField.hidden = this.number.disabled = !by;
    this.numberField.querySelector("label").textContent = by === "bytes" ? t("page.files.megabytes") : t("page.files.rows");
    this.number.min = by === "bytes" ? LEAST : 1;
    this.summary.textContent = by ? t("page.files.several") : t("page.files.one");
  }

  read() {
    const number = this.number.valueAsNumber;
    if (!this.by.value || Number.isNaN(number)) return null;
    if (this.by.value === "rows") return { rows: number };
    return { bytes: number === this.given?.shown ? this.given.bytes : number * MEGABYTE };
  }

  write(split) {
    this.by.value = split?.rows ? "rows" : split?.bytes ? "bytes" : "";
    if (split) this.number.value = split.rows ?? Math.max(LEAST, Math.round(split.bytes / MEGABYTE));
    this.given = split?.bytes && { bytes: split.bytes, shown: this.number.valueAsNumber };
    this.element.open = Boolean(split);
    this.show();
  }
}

/** Download a file. Its link is valid for a short time, so each download requests a new one. The token is not sent to the store. */
export async function download(path) {
  const { url } = await call("GET", path.replace(/^\//, ""));
  location.assign(url);
}

/** The list of the files of a job, which is read when it is opened. Errors are shown in `problem`. */
export class FileList {
  constructor(problem) {
    this.problem = problem;
    this.items = element("ol", { class: "files", "aria-label": t("page.files.title") });
    this.more = button(t("page.files.more"), (pressed) => this.read(pressed));
    this.element = element("div", { hidden: true }, this.items, element("p", { class: "buttons" }, this.more));
  }

  close(opener) {
    this.element.hidden = true;
    opener.setAttribute("aria-expanded", "false");
  }

  toggle(job, pressed) {
    if (!this.element.hidden) return this.close(pressed);
    this.element.hidden = false;
    pressed.setAttribute("aria-expanded", "true");
    this.url = job.files_url.slice(1);
    this.cursor = "";
    this.items.replaceChildren();
    return this.read(pressed);
  }

  read(pressed) {
    return busy(pressed, this.problem, async () => {
      const page = await call("GET", `${this.url}?limit=100${this.cursor && `&cursor=${this.cursor}`}`);
      const items = page.files.map((file) => this.item(file));
      this.items.append(...items);
      this.cursor = page.next_cursor;
      showButton(this.more, this.cursor, items[0]?.querySelector("button"));
    });
  }

  item(file) {
    const own = button(t("page.files.download"), (pressed) =>
      busy(pressed, this.problem, () => download(`${this.url}/${file.number}`)),
    );
    own.setAttribute("aria-label", t("page.files.download_file", { file: file.file_name }));
    return element("li", { value: file.number }, element("span", {}, file.file_name), element("small", {}, `${rows(file.row_count)} · ${size(file.file_size)}`), own);
  }
}

/** How many files a finished job has, in words, or null if it has one. */
export const several = (job) => (job.file_count > 1 ? t("page.files.count", { count: job.file_count }) : null);
