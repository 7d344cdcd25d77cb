// The parts of the page, for the user who has signed in.

import { call, lost, userOf } from "./api.js";
import { Builder } from "./builder.js";
import { noteOutage, onOutage, onRecovery } from "./connection.js";
import { busy, byId, canMoveFocus, element, showMessage, showRecoverableError } from "./dom.js";
import { Jobs } from "./jobs.js";
import { destinationModule } from "./labels.js";
import { choose, language, part, t } from "./messages.js";
import { Schedules } from "./schedules.js";
import { PAGE, SessionClock, payload, returned, session } from "./session.js";
import { clockTime, moment } from "./words.js";

const provider = () => part("provider", () => import("./openid.js"));
const DRAFT = "exports.draft"; // the form, while the user is at the provider
const RETRY = 5000; // milliseconds until the next attempt to open the page
const LOADS = 4; // attempts to load a part of the page

const panel = byId("sign-in");
const form = byId("token-form");
const problem = byId("sign-in-problem");
const notice = byId("session");

let signInSettings; // how users sign in
let view; // what the signed-in user has before them; it stays when the session ends
let warnedAbout = 0; // the end that users were warned of
let shownLink; // the part of the address that names the export which was shown
let signOuts = 0; // how often a user has signed out

const clock = new SessionClock({ renew: renewSession, warn, end: () => end(t("page.session.ended")) });

function show(signedIn) {
  panel.hidden = signedIn;
  byId("back").hidden = true;
  for (const id of ["page-title", "desk", "places", "who", "sign-out"]) byId(id).hidden = !signedIn;
  if (!signedIn) byId("operations").hidden = true;
  notice.hidden = true;
}

/** Show the page to the owner of the tokens. What the same user entered before stays. */
async function open(tokens, { focus = false } = {}) {
  const token = tokens.access;
  const before = signOuts;
  const [user, catalogue] = await Promise.all([userOf(token), call("GET", "exports/datasets", { token })]);
  const { destinations = [] } = catalogue; // an older API has none
  const { DestinationField } = destinations.length ? await destinationModule() : {};
  if (signOuts !== before) return; // the user signed out meanwhile
  if (view?.user.id !== user.id) session.clear();
  session.store(tokens); // no await until the lists begin: the session can end meanwhile
  byId("token").value = "";
  stopLists();
  if (view?.user.id !== user.id) {
    const destination = DestinationField && new DestinationField(destinations);
    const builder = new Builder(byId("builder"), user, { onRequested: showRequestedJob, onScheduled: showChangedSchedule, destination });
    view = { builder };
    shownLink = undefined;
    builder.setCatalogue(catalogue);
    const draft = JSON.parse(sessionStorage.getItem(DRAFT));
    if (draft?.user === user.id) builder.restore(draft.form);
  } else view.builder.updateCatalogue(catalogue);
  sessionStorage.removeItem(DRAFT);
  view.user = view.builder.user = user;
  view.datasets = catalogue.datasets;
  show(true);
  showSession(user);
  view.jobs = newJobList();
  view.schedules = new Schedules(user, {
    ran: (answer) => showRequestedJob(answer.export_job_id),
    show: (id) => view.jobs.find(id),
    edit: (schedule) => view.builder.edit(schedule),
    copy: (schedule) => view.builder.copy(schedule),
  });
  view.operations = undefined;
  if (!session.token) return; // it was over already
  if (user.operator) operate(user);
  if (focus) byId("new").focus({ preventScroll: true });
  await startLists();
  await showLinkedJob();
}

/** Add the view of the operators. */
async function operate(user) {
  const { generation } = session;
  const over = () => generation !== session.generation || view.user !== user;
  const place = byId("operations-problem");
  showMessage(place, "");
  try {
    const { Operations } = await retryUntilAnswered(() => part("operations", () => import("./operations.js")), over);
    if (over()) return;
    view.operations = new Operations(user);
    view.operations.start();
  } catch (failure) {
    if (!over()) showRecoverableError(place, failure);
  }
}

/** Show the export that the address names, once. The focus moves to it unless the user is at work elsewhere. */
async function showLinkedJob(changed) {
  const [hash, id] = /^#job-([\da-f-]{36})$/.exec(location.hash) ?? [];
  if (!id || !session.token || !view?.jobs || (!changed && shownLink === hash)) return;
  const place = byId("link-problem");
  showMessage(place, "");
  try {
    const card = await view.jobs.find(id, () => changed || [document.body, byId("new")].includes(document.activeElement));
    shownLink = card && hash;
  } catch (failure) {
    if (failure.name === "AbortError") return; // users sign in again
    shownLink = !failure.away && hash; // asked again when the service answers
    showRecoverableError(place, failure);
    place.scrollIntoView({ block: "center" });
  }
}

/** The list of exports, anew: one that was stopped does not start again. */
function newJobList() {
  return new Jobs(view.user, { again: (job) => view.builder.fill(job), schedule: (id) => view.schedules.find(id), datasets: view.datasets });
}

async function startLists() {
  await Promise.all([view.jobs.start(), view.schedules.load()]);
}

function stopLists() {
  view?.jobs?.stop();
  view?.schedules?.stop();
  view?.operations?.stop();
}

/** The session of `user` goes on until its end. */
function showSession(user) {
  const until = moment(user.ends);
  byId("who").replaceChildren(user.id, " ", element("span", {}, user.admin ? t("page.top.signed_in_admin", { until }) : t("page.top.signed_in", { until })));
  notice.hidden = true;
  clock.start(user.ends, Boolean(signInSettings.oidc && session.otherTokens?.refresh));
}

/** Renew the session; return its new end, or 0 if the provider refuses. */
async function renewSession() {
  const { generation } = session;
  const over = () => generation !== session.generation; // the user signed out meanwhile
  try {
    const tokens = await (await provider()).renew(signInSettings.oidc, session.otherTokens);
    if (over()) return 0;
    session.store(tokens); // at once: the old refresh token can have ended with its use
    const user = await userOf(tokens.access);
    if (over()) return 0;
    showSession(user);
    return user.ends;
  } catch (failure) {
    if (failure.away || failure.unloaded) throw failure;
    return 0;
  }
}

function warn(ends) {
  if (warnedAbout === ends) return;
  warnedAbout = ends;
  byId("session-text").textContent = t("page.session.ends", { time: clockTime(ends) });
  notice.hidden = false;
}

/** The session has ended: users sign in again, and find the form as they left it. */
function end(reason) {
  session.clear();
  clock.stop();
  stopLists();
  show(false);
  showMessage(problem, reason);
  for (const id of ["link-problem", "operations-problem"]) showMessage(byId(id), "");
  byId("news").textContent = "";
  form.querySelector("button").ariaBusy = null; // of a sign-in whose lists are being read
  focusSignIn();
}

async function signOut() {
  const { otherTokens } = session;
  signOuts += 1;
  view?.builder.form.replaceChildren();
  byId("operations").replaceChildren();
  end("");
  if (location.hash.startsWith("#job-")) history.replaceState(null, "", PAGE); // it is not for the next user
  view = undefined;
  if (!signInSettings.oidc || !otherTokens) return;
  await busy(byId("provider"), problem, async () => (await provider()).leave(signInSettings.oidc, otherTokens)); // for shared computers
}

/** Sign in once more before the session ends, or after. The form waits in this tab. */
async function signInAgain() {
  if (signInSettings.oidc && session.otherTokens) await toProvider();
  else {
    show(false);
    byId("back").hidden = false;
    focusSignIn();
  }
}

async function toProvider() {
  await busy(byId("provider"), problem, async () => {
    if (view) sessionStorage.setItem(DRAFT, JSON.stringify({ user: view.user.id, form: view.builder.draft() }));
    await (await provider()).begin(signInSettings.oidc);
  });
}

function focusSignIn() {
  (signInSettings?.oidc ? byId("provider") : byId("token")).focus();
}

/** Show how to sign in, as the operators have set it. */
function prepare() {
  const { oidc, hint, url, local } = signInSettings;
  if (oidc) provider().catch(() => {});
  byId("provider").hidden = !oidc;
  byId("with-token").classList.toggle("bare", !oidc);
  byId("with-token").open = !oidc;
  form.querySelector("button").textContent = oidc ? t("page.sign_in.use_token") : t("page.sign_in.submit");
  const texts = [hint ?? t("page.sign_in.help"), local && !hint && t("page.sign_in.help_local")].filter(Boolean).join(" ");
  byId("token-help").replaceChildren(texts, url ? " " : "", url ? element("a", { href: url, target: "_blank", rel: "noreferrer" }, t("page.sign_in.more")) : "");
}

async function showChangedSchedule(id) {
  await view.schedules.load();
  await view.schedules.find(id);
}

/** Show a job that was just requested, and move the focus to it. `download` starts the download of its file. */
async function showRequestedJob(id, { download = false } = {}) {
  const { jobs } = view;
  const card = (await jobs.refresh(id)) ?? jobs.cards.get(id);
  if (download) card?.downloadFile(card.download);
  if (canMoveFocus()) card?.focus();
}

form.onsubmit = (event) => {
  event.preventDefault();
  const token = byId("token").value.trim().replace(/^Bearer\s+/i, "");
  busy(form.querySelector("button"), problem, async () => {
    if (!/^[\x21-\x7e]+$/.test(token) || !payload(token)) throw new Error(t("page.sign_in.not_a_token"));
    await open({ access: token }, { focus: true });
  });
};

byId("language").value = language;
byId("language").onchange = ({ target }) => choose(target.value);
byId("provider").onclick = toProvider;
byId("back").onclick = () => {
  show(true);
  view.operations?.show();
  warnedAbout = 0;
};
byId("sign-in-again").onclick = signInAgain;
byId("sign-out").onclick = signOut;
addEventListener("hashchange", showLinkedJob);
onOutage(() => view?.jobs?.stream.showLive());
onRecovery(() => {
  if (!view || !session.token) return;
  view.jobs.stream.showLive();
  view.jobs.renew();
  view.schedules.load();
  showLinkedJob();
  const { estimate } = view.builder;
  if (estimate.isUnknown) estimate.ask();
});

/** The service no longer accepts the token: the session goes on with a new one, or ends. */
lost.handler = async () => {
  const { generation } = session;
  if (clock.renewable && (await clock.attempt())) return true;
  if (generation === session.generation) end(t("page.session.ended"));
  return false;
};

/** Call `act` until the service answers, or until it is `over`. What cannot be loaded is tried a few times. */
async function retryUntilAnswered(act, over = () => false) {
  for (let loads = 1; ; ) {
    try {
      return await act();
    } catch (failure) {
      const { away, status, unloaded } = failure;
      if (over() || !(away || status >= 500 || (unloaded && loads < LOADS))) throw failure;
      if (away) noteOutage();
      await new Promise((resolve) => setTimeout(resolve, unloaded ? RETRY * loads : RETRY));
      if (over()) throw failure;
      if (unloaded) loads += 1;
    }
  }
}

/** Open the page again with the tokens of this tab. An access token that has ended is renewed if possible. */
async function resume() {
  const { token, otherTokens } = session;
  try {
    await open({ access: token, ...otherTokens });
  } catch (failure) {
    if (failure.status !== 401 || !signInSettings.oidc || !otherTokens?.refresh) throw failure;
    const tokens = await (await provider()).renew(signInSettings.oidc, otherTokens);
    session.store(tokens); // at once: the old refresh token can have ended with its use
    await open(tokens);
  }
}

async function main() {
  const query = returned();
  signInSettings = await retryUntilAnswered(() => call("GET", "page/sign-in.json", { token: null, timed: true }));
  prepare();
  try {
    if (query && signInSettings.oidc) await open(await (await provider()).finish(signInSettings.oidc, query), { focus: true });
    else if (session.token) await retryUntilAnswered(resume);
    else end("");
  } catch (failure) {
    if (failure.unloaded) {
      show(false);
      showRecoverableError(problem, failure); // the tokens stay for the page that is loaded again
      return;
    }
    end(failure.status === 401 ? t("page.session.ended") : "");
    if (failure.status !== 401) showRecoverableError(problem, failure);
  }
}

main();
