/** "My attempts": what the server has on record, and on top of it what the link tells live. */

import { el, say, soon } from "../dom.js";
import { AttemptCard } from "./attempt.js";
import { gradeText, words } from "./words.js";

const GATHER = 150; // ms in which several reasons to look anew become one
const ENDS = ["done", "failed", "cancelled"];
const group = ({ state }) => (state === "queued" ? 1 : ENDS.includes(state) ? 2 : 0); // 0: it runs

export class Attempts {
  #list = el("ol", { className: "attempts" });
  #empty = el("p", { className: "empty", hidden: true },
    "Nothing here yet. What you hand in on your course page appears here by itself.");
  #problem = el("p", { className: "problem", role: "alert", hidden: true });
  #summary = el("p", { className: "summary" });
  #rows = new Map(); // by attempt: {data, card, heard}
  #newest = []; // the attempts, the newest first
  #moment = 0; // counts what was asked and heard, so that an old answer does not undo newer news
  #loaded = 0; // when what is shown was asked for
  #acts; #tell;

  /** Look anew soon. */
  refresh;

  /**
   * @param {{list: () => Promise<object[]>, log: Function, cancel: Function}} acts
   * @param {(text: string) => void} tell  what is read aloud
   */
  constructor(acts, tell) {
    this.#acts = acts;
    this.#tell = tell;
    this.refresh = soon(() => this.load(), GATHER);
    this.heading = el("h1", { tabIndex: -1 }, "My attempts");
    this.element = el("section", {},
      el("div", { className: "top" }, this.heading, this.#summary), this.#problem, this.#list, this.#empty);
  }

  /** Show what the server has on record. */
  async load() {
    const asked = ++this.#moment;
    let found;
    try {
      found = await this.#acts.list();
    } catch (error) {
      this.#problem.textContent = `Your attempts cannot be looked up now: ${error.message}`;
      this.#problem.hidden = false;
      return;
    }
    if (asked < this.#loaded) return; // a later answer was quicker
    this.#loaded = asked;
    this.#problem.hidden = true;
    for (const data of found) this.#record(data, asked);
    this.#newest = found.map(({ id }) => id);
    this.#arrange();
  }

  /** @param {{attempt: string, run: string, place: number, total: string, reason: string}} place */
  place({ attempt, run, place, total, reason }) {
    const changed = this.#hear(attempt, run, {
      state: place > 0 ? "queued" : "running", place, total, reason, progress: "" });
    if (changed) this.#tell(`${name(changed)}: ${place > 0 ? `place ${place} in line` : words(changed).title}`);
  }

  /** @param {{attempt: string, run: string, text: string}} progress */
  progress({ attempt, run, text }) {
    this.#hear(attempt, run, { state: "running", place: 0, progress: text });
  }

  /** A run has ended: shown at once as far as it is known, and looked up for the rest. */
  final({ attempt, run, status, grade, fault, message }) {
    const id = attempt || [...this.#rows.values()].find(({ data }) => data.run === run)?.data.id;
    const state = status === "cancelled" ? "cancelled" : status ? "done" : "failed";
    const row = { state, place: 0, status, grade, fault, message, progress: "" };
    const changed = id && this.#hear(id, run, row);
    if (changed) this.#tell([`${name(changed)}: ${words(changed).title}`, gradeText(changed)].filter(Boolean).join(", "));
    this.refresh();
  }

  /** The best place of what waits, 0 when nothing does. */
  get nearest() {
    const places = [...this.#rows.values()].map(({ data }) => (data.state === "queued" ? data.place : 0));
    return Math.min(...places.filter((place) => place > 0), Infinity) % Infinity || 0;
  }

  /** Take what the link says of a run; returns the attempt if that changed it. */
  #hear(id, run, news) {
    const row = this.#rows.get(id);
    if (!row || row.data.run !== run) {
      this.refresh(); // handed in a moment ago, or once more
      return null;
    }
    if (ENDS.includes(row.data.state) && !ENDS.includes(news.state)) return null;
    row.heard = ++this.#moment;
    const moved = group(row.data) !== group(news);
    row.data = { ...row.data, ...news };
    row.card.show(row.data);
    if (moved) this.#arrange();
    return row.data;
  }

  #record(data, asked) {
    const row = this.#rows.get(data.id);
    if (!row) {
      this.#rows.set(data.id, { data, heard: 0, card: new AttemptCard(data, this.#acts) });
      return;
    }
    const { state, place, total, reason, progress } = row.data;
    const stale = row.data.run === data.run && row.heard > asked && !ENDS.includes(data.state);
    const ended = ENDS.includes(state) && !ENDS.includes(data.state) && row.data.run === data.run;
    if (ended) return;
    row.data = stale ? { ...data, state, place, total, reason, progress }
      : { ...data, progress: row.data.run === data.run ? progress : "" };
    row.card.show(row.data);
  }

  /**
   * Put the cards in order: what runs, what waits (whose turn comes first is first), then the rest,
   * newest first. Places do not count, so nothing moves while its state stays.
   */
  #arrange() {
    for (const [id, row] of this.#rows) {
      if (this.#newest.includes(id)) continue;
      row.card.element.remove();
      this.#rows.delete(id);
    }
    const [running, waiting, rest] = [[], [], []].map((_, wanted) => (
      this.#newest.map((id) => this.#rows.get(id)).filter(({ data }) => group(data) === wanted)));
    const focused = document.activeElement;
    [...running.reverse(), ...waiting.reverse(), ...rest].forEach(({ card: { element } }, at) => {
      if (this.#list.children[at] !== element) this.#list.insertBefore(element, this.#list.children[at] ?? null);
    });
    if (focused !== document.activeElement) focused.focus({ preventScroll: true });
    say(this.#summary, [[running, "running"], [waiting, "waiting"]]
      .filter(([rows]) => rows.length).map(([rows, are]) => `${rows.length} ${are}`).join(" · "));
    this.#empty.hidden = this.#newest.length > 0;
  }
}

const name = (data) => data.title || `Attempt ${data.id}`;
