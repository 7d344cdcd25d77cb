// Receives changes of jobs: events, and polling while there are none.

import { Failure, events, parse } from "./api.js";
import { isAway } from "./connection.js";
import { byId, showMessage, showRecoverableError } from "./dom.js";
import { t } from "./messages.js";
import { now } from "./session.js";

// Milliseconds
const POLL = 1500; // between two readings where events do not come
const LONGEST_WAIT = 10_000; // between two attempts to listen
const LONGEST_PAUSE = 60_000; // between two attempts to read a list that has failed

const SELDOM = 10; // while no job runs, the list is read each time this many pauses have passed

export class JobStream {
  /** `jobs` is the list that shows the changes. */
  constructor(jobs) {
    this.jobs = jobs;
    this.isLive = false; // whether a stream of events is open
    this.polls = 0;
    this.pause = POLL;
    this.pausedUntil = 0;
  }

  start() {
    this.listen();
    this.poll();
  }

  /** Stop the polling. The signal of `jobs` ends the events. */
  stop() {
    clearTimeout(this.timer);
    byId("live").textContent = "";
  }

  /** Receive server-sent events while the page is open. */
  async listen() {
    const { jobs } = this;
    const { signal } = jobs.abortController;
    let wait = 1000;
    let last;
    let again = false;
    const opened = () => {
      this.setLive(true);
      if (again || jobs.unfinished.length || !jobs.isCurrent) jobs.renew(); // events tell of what is unfinished now
      again = true;
    };
    while (!signal.aborted) {
      try {
        for await (const event of events("exports/events", { last, opened, signal })) {
          last = event.id ?? last;
          wait = 1000;
          if (event.type === "job") jobs.addIfListed(parse(event.data));
        }
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error instanceof Failure && error.status >= 400 && error.status < 500 && error.status !== 429) return;
      }
      this.setLive(false);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  setLive(on) {
    if (this.isLive === on) return;
    this.isLive = on;
    this.showLive();
  }

  /** Show whether changes come at once. A stream can be open and silent because the service does not answer. */
  showLive() {
    const on = this.isLive && !isAway();
    if (!this.isLive && !byId("live").textContent) return; // there never was a stream
    byId("live").textContent = on ? t("page.jobs.live") : t("page.jobs.not_live");
    byId("live").classList.toggle("off", !on);
  }

  /** Whether the list is to be read now: often while a job runs, otherwise rarely. Events are of the user's own jobs only. */
  get shouldPoll() {
    const { failed, hasGrown, unfinished, user } = this.jobs;
    const isDue = (unfinished.length > 0 || this.polls % SELDOM === 0) && now() >= this.pausedUntil;
    const isBehind = failed?.passes || hasGrown; // what has failed is tried again
    const hasOthersJobs = user.admin || unfinished.some(({ job }) => job.user_id !== user.id);
    return isDue && !document.hidden && (!this.isLive || isBehind || hasOthersJobs);
  }

  poll() {
    this.timer = setTimeout(async () => {
      this.polls += 1;
      if (this.shouldPoll) {
        try {
          await this.readList();
        } catch (failure) {
          if (failure.name === "AbortError" || failure.status === 401) return;
          showRecoverableError(this.jobs.problem, failure);
        }
        this.pause = this.jobs.failed?.passes ? Math.min(this.pause * 2, LONGEST_PAUSE) : POLL;
        this.pausedUntil = this.pause > POLL ? now() + this.pause : 0;
      }
      this.poll();
    }, POLL);
  }

  async readList() {
    const { jobs } = this;
    const isRefused = jobs.failed && !jobs.failed.passes; // until the user searches for something else
    await (isRefused ? jobs.refreshUnfinished() : jobs.newest({ attempts: 1 }));
    if (!jobs.failed) showMessage(jobs.problem, "");
  }
}
