// The parts of the page, for the user who has signed in.

import { call, lost, userOf } from "./api.js";
import { Builder } from "./builder.js";
import { goes, onLoss, onReturn } from "./connection.js";
import { busy, byId, h, isFree, report, say } from "./dom.js";
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

let how; // how users sign in
let desk; // what the signed-in user has before them; it stays when the session ends
let warned = 0; // the end that users were warned of
let followed; // the part of the address that names the export which was shown
let departures = 0; // how often a user has signed out

const clock = new SessionClock({ renew: goOn, warn, end: () => end(t("page.session.ended")) });

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
  const before = departures;
  const [user, catalogue] = await Promise.all([userOf(token), call("GET", "exports/datasets", { token })]);
  const { destinations = [] } = catalogue; // an older API has none
  const { DestinationField } = destinations.length ? await destinationModule() : {};
  if (departures !== before) return; // the user signed out meanwhile
  if (desk?.user.id !== user.id) session.forget();
  session.keep(tokens); // no await until the lists begin: the session can end meanwhile
  byId("token").value = "";
  lists(false);
  if (desk?.user.id !== user.id) {
    const destination = DestinationField && new DestinationField(destinations);
    const builder = new Builder(byId("builder"), user, { ordered: appear, scheduled, destination });
    desk = { builder };
    followed = undefined;
    builder.use(catalogue);
    const draft = JSON.parse(sessionStorage.getItem(DRAFT));
    if (draft?.user === user.id) builder.restore(draft.form);
  } else desk.builder.renew(catalogue);
  sessionStorage.removeItem(DRAFT);
  desk.user = desk.builder.user = user;
  desk.datasets = catalogue.datasets;
  show(true);
  started(user);
  desk.jobs = listed();
  desk.schedules = new Schedules(user, {
    ran: (answer) => appear(answer.export_job_id),
    show: (id) => desk.jobs.show(id),
    edit: (schedule) => desk.builder.edit(schedule),
    copy: (schedule) => desk.builder.copy(schedule),
  });
  desk.operations = undefined;
  if (!session.token) return; // it was over already
  if (user.operator) operate(user);
  if (focus) byId("new").focus({ preventScroll: true });
  await lists(true);
  await follow();
}

/** Add the view of the operators. */
async function operate(user) {
  const { turn } = session;
  const over = () => turn !== session.turn || desk.user !== user;
  const place = byId("operations-problem");
  say(place, "");
  try {
    const { Operations } = await persist(() => part("operations", () => import("./operations.js")), over);
    if (over()) return;
    desk.operations = new Operations(user);
    desk.operations.start();
  } catch (failure) {
    if (!over()) report(place, failure);
  }
}

/** Show the export that the address names, once. The focus moves to it unless the user is at work elsewhere. */
async function follow(changed) {
  const [hash, id] = /^#job-([\da-f-]{36})$/.exec(location.hash) ?? [];
  if (!id || !session.token || !desk?.jobs || (!changed && followed === hash)) return;
  const place = byId("link-problem");
  say(place, "");
  try {
    const card = await desk.jobs.show(id, () => changed || [document.body, byId("new")].includes(document.activeElement));
    followed = card && hash;
  } catch (failure) {
    if (failure.name === "AbortError") return; // users sign in again
    followed = !failure.away && hash; // asked again when the service answers
    report(place, failure);
    place.scrollIntoView({ block: "center" });
  }
}

/** The list of exports, anew: one that was stopped does not start again. */
function listed() {
  return new Jobs(desk.user, { again: (job) => desk.builder.fill(job), schedule: (id) => desk.schedules.find(id), datasets: desk.datasets });
}

/** Begin to show the lists, or stop it. */
async function lists(on) {
  if (!on) {
    desk?.jobs?.stop();
    desk?.schedules?.stop();
    desk?.operations?.stop();
    return;
  }
  await Promise.all([desk.jobs.start(), desk.schedules.load()]);
}

/** The session of `user` goes on until its end. */
function started(user) {
  const until = moment(user.ends);
  byId("who").replaceChildren(user.id, " ", h("span", {}, user.admin ? t("page.top.signed_in_admin", { until }) : t("page.top.signed_in", { until })));
  notice.hidden = true;
  clock.start(user.ends, Boolean(how.oidc && session.rest?.refresh));
}

/** Renew the session; return its new end, or 0 if the provider refuses. */
async function goOn() {
  const { turn } = session;
  const over = () => turn !== session.turn; // the user signed out meanwhile
  try {
    const tokens = await (await provider()).renew(how.oidc, session.rest);
    if (over()) return 0;
    session.keep(tokens); // at once: the old refresh token can have ended with its use
    const user = await userOf(tokens.access);
    if (over()) return 0;
    started(user);
    return user.ends;
  } catch (failure) {
    if (failure.away || failure.unloaded) throw failure;
    return 0;
  }
}

function warn(ends) {
  if (warned === ends) return;
  warned = ends;
  byId("session-text").textContent = t("page.session.ends", { time: clockTime(ends) });
  notice.hidden = false;
}

/** The session has ended: users sign in again, and find the form as they left it. */
function end(reason) {
  session.forget();
  clock.stop();
  lists(false);
  show(false);
  say(problem, reason);
  for (const id of ["link-problem", "operations-problem"]) say(byId(id), "");
  byId("news").textContent = "";
  form.querySelector("button").ariaBusy = null; // of a sign-in whose lists are being read
  focusSignIn();
}

async function signOut() {
  const { rest } = session;
  departures += 1;
  desk?.builder.form.replaceChildren();
  byId("operations").replaceChildren();
  end("");
  if (location.hash.startsWith("#job-")) history.replaceState(null, "", PAGE); // it is not for the next user
  desk = undefined;
  if (!how.oidc || !rest) return;
  await busy(byId("provider"), problem, async () => (await provider()).leave(how.oidc, rest)); // for shared computers
}

/** Sign in once more before the session ends, or after. The form waits in this tab. */
async function signInAgain() {
  if (how.oidc && session.rest) await toProvider();
  else {
    show(false);
    byId("back").hidden = false;
    focusSignIn();
  }
}

async function toProvider() {
  await busy(byId("provider"), problem, async () => {
    if (desk) sessionStorage.setItem(DRAFT, JSON.stringify({ user: desk.user.id, form: desk.builder.draft() }));
    await (await provider()).begin(how.oidc);
  });
}

function focusSignIn() {
  (how?.oidc ? byId("provider") : byId("token")).focus();
}

/** Show how to sign in, as the operators have set it. */
function prepare() {
  const { oidc, hint, url, local } = how;
  if (oidc) provider().catch(() => {});
  byId("provider").hidden = !oidc;
  byId("with-token").classList.toggle("bare", !oidc);
  byId("with-token").open = !oidc;
  form.querySelector("button").textContent = oidc ? t("page.sign_in.use_token") : t("page.sign_in.submit");
  const texts = [hint ?? t("page.sign_in.help"), local && !hint && t("page.sign_in.help_local")].filter(Boolean).join(" ");
  byId("token-help").replaceChildren(texts, url ? " " : "", url ? h("a", { href: url, target: "_blank", rel: "noreferrer" }, t("page.sign_in.more")) : "");
}

async function scheduled(id) {
  await desk.schedules.load();
  await desk.schedules.find(id);
}

/** Show a job that was just requested, and move the focus to it. `download` starts the download of its file. */
async function appear(id, { download = false } = {}) {
  const { jobs } = desk;
  const card = (await jobs.refresh(id)) ?? jobs.cards.get(id);
  if (download) card?.fetch(card.download);
  if (isFree()) card?.take();
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
  desk.operations?.show();
  warned = 0;
};
byId("sign-in-again").onclick = signInAgain;
byId("sign-out").onclick = signOut;
addEventListener("hashchange", follow);
onLoss(() => desk?.jobs?.showLive());
onReturn(() => {
  if (!desk || !session.token) return;
  desk.jobs.showLive();
  desk.jobs.renew();
  desk.schedules.load();
  follow();
  if (desk.builder.unknown) desk.builder.ask();
});

/** The service no longer accepts the token: the session goes on with a new one, or ends. */
lost.handler = async () => {
  const { turn } = session;
  if (clock.renewable && (await clock.attempt())) return true;
  if (turn === session.turn) end(t("page.session.ended"));
  return false;
};

/** Call `act` until the service answers, or until it is `over`. What cannot be loaded is tried a few times. */
async function persist(act, over = () => false) {
  for (let loads = 1; ; ) {
    try {
      return await act();
    } catch (failure) {
      const { away, status, unloaded } = failure;
      if (over() || !(away || status >= 500 || (unloaded && loads < LOADS))) throw failure;
      if (away) goes();
      await new Promise((resolve) => setTimeout(resolve, unloaded ? RETRY * loads : RETRY));
      if (over()) throw failure;
      if (unloaded) loads += 1;
    }
  }
}

/** Open the page again with the tokens of this tab. An access token that has ended is renewed if possible. */
async function resume() {
  const { token, rest } = session;
  try {
    await open({ access: token, ...rest });
  } catch (failure) {
    if (failure.status !== 401 || !how.oidc || !rest?.refresh) throw failure;
    const tokens = await (await provider()).renew(how.oidc, rest);
    session.keep(tokens); // at once: the old refresh token can have ended with its use
    await open(tokens);
  }
}

async function begun() {
  const query = returned();
  how = await persist(() => call("GET", "page/sign-in.json", { token: null, timed: true }));
  prepare();
  try {
    if (query && how.oidc) await open(await (await provider()).finish(how.oidc, query), { focus: true });
    else if (session.token) await persist(resume);
    else end("");
  } catch (failure) {
    if (failure.unloaded) {
      show(false);
      report(problem, failure); // the tokens stay for the page that is loaded again
      return;
    }
    end(failure.status === 401 ? t("page.session.ended") : "");
    if (failure.status !== 401) report(problem, failure);
  }
}

begun();
