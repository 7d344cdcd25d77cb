// The parameters of a dataset's query.

import { choice, element, field } from "./dom.js";
import { inputs } from "./filters.js";
import { labelOf } from "./labels.js";
import { t } from "./messages.js";

const KINDS = { bigint: "integer" };

/** A control with `read`, which returns undefined for no value, and `write`. */
function control(parameter, zone) {
  const { choices, type, required, default: usual } = parameter;
  if (choices || type === "boolean") return select(parameter, choices ?? [true, false]);
  const made = inputs({ name: labelOf(parameter), kind: KINDS[type] ?? type }, "eq", zone);
  const own = made.element.matches("input") ? [made.element] : [...made.element.querySelectorAll("input")];
  const needed = required && usual === null;
  for (const [index, input] of own.entries()) {
    input.required = needed && index === 0;
    if (index === 0) input.removeAttribute("aria-label"); // it has a label of its own
  }
  return { element: made.element, main: own[0], read: () => made.read() || undefined, write: (value) => made.write(value) };
}

function select({ required, default: usual }, values) {
  const empty = required && usual === null ? t("page.parameters.choose") : usual === null ? t("page.parameters.no_value") : t("page.parameters.usual", { value: shown(usual) });
  const list = choice([["", empty], ...values.map((value, index) => [index, shown(value)])]);
  list.required = required && usual === null;
  return {
    element: list,
    main: list,
    read: () => (list.value === "" ? undefined : values[list.value]),
    write(value) {
      const index = values.findIndex((own) => String(own) === String(value));
      list.value = index < 0 ? "" : index;
      return index >= 0;
    },
  };
}

const shown = (value) => (value === true ? t("page.parameters.yes") : value === false ? t("page.parameters.no") : String(value));

export class Parameters {
  /** `zone()` is the time zone of times. */
  constructor(zone) {
    this.zone = zone;
    this.items = new Map();
    this.element = element("div", { class: "part parameters" });
  }

  /** Show the parameters of a dataset. */
  use(parameters) {
    this.items.clear();
    const fields = (parameters ?? []).map((parameter) => {
      const item = control(parameter, this.zone);
      this.items.set(parameter.name, item);
      const usual = parameter.default !== null && !item.main.matches("select") && t("page.parameters.usual", { value: String(parameter.default) });
      item.field = field(labelOf(parameter), item.main, [parameter.description, usual].filter(Boolean).join(" · "));
      if (item.main !== item.element) item.main.after(...item.element.children);
      return item.field;
    });
    this.element.replaceChildren(...(fields.length ? [element("h3", {}, t("page.parameters.title")), ...fields] : []));
    this.element.hidden = !fields.length;
  }

  read() {
    const found = {};
    for (const [name, { read }] of this.items) {
      const value = read();
      if (value !== undefined) found[name] = value;
    }
    return found;
  }

  /** Show the parameters of a job; return the names of those that cannot be shown. */
  write(wanted) {
    return Object.entries(wanted ?? {})
      .filter(([name, value]) => value !== null && !this.items.get(name)?.write(value))
      .map(([name]) => name);
  }

  /** Mark the parameter that an error names; null marks none. */
  mark(name) {
    for (const [own, item] of this.items) item.field.classList.toggle("wrong", own === name);
  }
}
