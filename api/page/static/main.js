// Signs in and out, and shows the parts of the page.

import { bearer, call, lost, session } from "./api.js";
import { Builder } from "./builder.js";
import { busy, byId, h, say } from "./dom.js";
import { Jobs } from "./jobs.js";
import { choose, language, t } from "./messages.js";
import { Schedules } from "./schedules.js";
import { moment } from "./words.js";

const LONGEST_TIMER = 2 ** 31 - 1;

let jobs;
let schedules;
let timer;

const form = byId("sign-in");
const problem = byId("sign-in-problem");

function show(signedIn) {
  form.hidden = signedIn;
  for (const id of ["desk", "places", "who", "sign-out"]) byId(id).hidden = !signedIn;
}

function signOut(reason) {
  session.token = null;
  clearTimeout(timer);
  jobs?.stop();
  schedules?.stop();
  show(false);
  say(problem, reason);
  byId("token").focus();
}

async function open(token, { focus }) {
  const user = bearer(token);
  const catalogue = await call("GET", "exports/datasets", { token });
  session.token = token;
  const until = moment(user.ends);
  byId("who").replaceChildren(user.id, " ", h("span", {}, user.admin ? t("page.top.signed_in_admin", { until }) : t("page.top.signed_in", { until })));
  show(true);
  timer = setTimeout(() => signOut(t("page.sign_in.expired")), Math.min(user.ends - Date.now(), LONGEST_TIMER));

  jobs = new Jobs(user, { again: (job) => builder.fill(job) });
  schedules = new Schedules(user, { ran: (answer) => appear(answer.export_job_id) });
  const builder = new Builder(byId("builder"), user, { ordered: appear, scheduled });
  builder.use(catalogue);
  await Promise.all([jobs.start().catch((failure) => say(byId("jobs-problem"), failure.message)), schedules.load()]);
  if (focus) byId("new").focus({ preventScroll: true });
}

async function scheduled() {
  await schedules.load();
  byId("schedules").focus();
}

/** Show a job that was just requested, and move the focus to it. `download` starts the download of its file. */
async function appear(id, { download = false } = {}) {
  const card = (await jobs.refresh(id)) ?? jobs.cards.get(id);
  if (download) card?.fetch(card.download);
  if (!card || card.element.contains(document.activeElement)) return; // the user is at work in the card: the focus stays
  card.element.focus({ preventScroll: true });
  card.element.scrollIntoView({ block: "nearest" });
}

form.onsubmit = (event) => {
  event.preventDefault();
  const token = byId("token").value.trim().replace(/^Bearer\s+/i, "");
  busy(form.querySelector("button"), problem, async () => {
    if (!/^[\x21-\x7e]+$/.test(token) || !bearer(token)) throw new Error(t("page.sign_in.not_a_token"));
    await open(token, { focus: true });
    byId("token").value = "";
  });
};

byId("language").value = language;
byId("language").onchange = ({ target }) => choose(target.value);
byId("sign-out").onclick = () => signOut("");
lost.handler = (failure) => signOut(failure.message);

if (session.token) {
  const { token } = session;
  open(token, { focus: false }).catch((failure) => {
    signOut(failure.message);
    if (failure.status !== 401) byId("token").value = token; // nothing is wrong with it: try again
  });
} else {
  signOut("");
}
