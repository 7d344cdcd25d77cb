// Tests of destinations, for those who operate the service.

import { call } from "./api.js";
import { busy, button, element, errorMessage, nameWith } from "./dom.js";
import { labelOf } from "./labels.js";
import { update } from "./live_list.js";
import { t } from "./messages.js";

const LIMIT = 180_000; // milliseconds for a test: a server that is away, or slow, uses all time limits of the steps

/** The list of destinations. It is read when it is opened. */
export function destinationTests() {
  const list = element("ul", { class: "rows", "aria-label": t("page.operations.destinations.title") });
  const none = element("p", { class: "hint", hidden: true }, t("page.operations.destinations.empty"));
  const problem = errorMessage();
  const show = async () => {
    const { destinations } = await call("GET", "exports/destinations");
    none.hidden = destinations.length > 0;
    const unshown = update(list, destinations, ({ name }) => name, item);
    if (unshown) throw unshown;
  };
  const ontoggle = ({ currentTarget }) => currentTarget.open && busy(list, problem, show);
  return element("details", { ontoggle }, element("summary", {}, t("page.operations.destinations.title")), element("p", { class: "hint" }, t("page.operations.destinations.about")), problem, none, list);
}

function item(destination) {
  const { name, kind, host } = destination;
  const problem = errorMessage();
  const result = element("p", { class: "hint", role: "status" });
  const steps = element("ol", { class: "files", hidden: true, "aria-label": t("page.operations.destinations.steps") });
  const title = element("h4", {}, `${labelOf(destination)} `, element("span", { class: "kind" }, name));
  const test = button(t("page.operations.destinations.test"), (pressed) =>
    busy(pressed, problem, async () => {
      steps.hidden = true;
      result.textContent = t("page.operations.destinations.testing");
      try {
        const answer = await call("POST", `exports/destinations/${encodeURIComponent(name)}:test`, { timeout: LIMIT });
        steps.replaceChildren(...answer.steps.map(step));
        steps.hidden = false;
        result.textContent = answer.ok ? t("page.operations.destinations.works") : t("page.operations.destinations.fails");
      } catch (failure) {
        result.textContent = "";
        throw failure;
      }
    }),
  );
  nameWith(test, title);
  return element("li", { class: "job" }, title, element("p", { class: "hint" }, [kind.toUpperCase(), host].filter(Boolean).join(" · ")), problem, result, steps, element("p", { class: "buttons" }, test));
}

function step({ step: name, error }) {
  const key = name.replaceAll(" ", "_");
  const words = { step: t(`page.operations.destinations.step.${key}`), result: error ?? t("page.operations.destinations.done") };
  return element("li", { class: error ? "error" : "" }, t("page.operations.destinations.outcome", words));
}
