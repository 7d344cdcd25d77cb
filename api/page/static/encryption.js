// Encryption of the files: the part of the form, and the password of zip archives, which is shown once.

import { call } from "./api.js";
import { busy, button, choice, element, field, hasOption, showMessage } from "./dom.js";
import { t } from "./messages.js";

/** The part of the form. */
export class Encryption {
  constructor() {
    this.by = element("select", { onchange: () => this.show() });
    this.keys = element("textarea", { rows: 2, spellcheck: false, required: true, placeholder: "age1…" });
    this.keysField = field(t("page.encryption.keys"), this.keys, t("page.encryption.keys_hint"));
    this.note = element("p", { class: "hint" });
    this.summary = element("span");
    this.element = element("details", {}, element("summary", {}, t("page.encryption.title"), this.summary), field(t("page.encryption.by"), this.by), this.note, this.keysField);
    this.use(null);
  }

  /** Offer what the dataset allows. */
  use(dataset) {
    const before = this.by.value;
    const free = dataset?.encrypt === "required" ? [] : [["", t("page.encryption.none")]];
    const offered = choice([...free, ["zip_password", t("page.encryption.zip_password")], ["age", t("page.encryption.age")]]);
    this.by.replaceChildren(...offered.options);
    if (hasOption(this.by, before)) this.by.value = before;
    this.show();
  }

  show() {
    const by = this.by.value;
    this.keysField.hidden = this.keys.disabled = by !== "age";
    showMessage(this.note, by === "zip_password" ? t("page.encryption.zip_password_hint") : "");
    this.summary.textContent = this.by.selectedOptions[0]?.textContent ?? "";
  }

  read() {
    if (this.by.value === "zip_password") return { zip_password: true };
    const keys = this.keys.value.split("\n").map((key) => key.trim()).filter(Boolean);
    return this.by.value === "age" ? { age: keys } : null;
  }

  write(encrypt) {
    this.by.value = encrypt?.age ? "age" : encrypt?.zip_password ? "zip_password" : "";
    if (this.by.selectedIndex < 0) this.by.selectedIndex = 0; // the dataset requires encryption
    this.keys.value = encrypt?.age?.join("\n") ?? "";
    this.element.open = Boolean(encrypt);
    this.show();
  }
}

/** The button that shows the password of a job's zip archives, and the place of the password. Errors are shown in `problem`. */
export class Password {
  constructor(problem) {
    this.shown = element("code", { tabindex: -1 });
    this.place = element("p", { class: "password", hidden: true }, t("page.encryption.password"), " ", this.shown);
    this.button = button(t("page.encryption.show_password"), (pressed) =>
      busy(pressed, problem, async () => {
        const { password } = await call("POST", `exports/jobs/${this.id}:password`);
        this.shown.textContent = password;
        this.place.hidden = false;
        this.button.hidden = true;
        this.button.className += " keep";
        this.shown.focus();
      }),
    );
  }

  /** `own`: whether the job is one of the user, who alone is shown the password. */
  show(job, own) {
    this.id = job.export_job_id;
    this.button.hidden = !own || job.status !== "completed" || !job.encrypt?.zip_password || !this.place.hidden;
  }
}
