/** One attempt on the page. It is changed in place: focus and an open log stay where they are. */

import { el, say } from "../dom.js";
import { Cancel } from "./cancel.js";
import { moment, words } from "./words.js";

export class AttemptCard {
  #tile = el("span", { className: "tile-number" });
  #unit = el("span", { className: "tile-unit" });
  #title = el("h2", { tabIndex: -1 });
  #time = el("time");
  #said = el("p", { className: "said" });
  #hint = el("p", { className: "hint" });
  #reason = el("p", { className: "reason" });
  #cancel;
  #log;
  #text = el("pre", { className: "log", hidden: true, tabIndex: 0, role: "region" });
  #shownRun = "";
  #attempt;

  /**
   * @param {{id: string}} attempt
   * @param {{cancel: (id: string) => Promise<void>, log: (id: string) => Promise<string>}} acts
   */
  constructor(attempt, acts) {
    this.#cancel = new Cancel(() => this.#stop(acts));
    this.#log = el("button", { type: "button", className: "quiet", onclick: () => this.#toggle(acts) });
    this.#text.id = `log-${attempt.id}`;
    this.#log.setAttribute("aria-controls", this.#text.id);
    this.element = el("li", { className: "attempt" },
      el("div", { className: "tile" }, this.#tile, " ", this.#unit),
      el("div", { className: "body" },
        this.#title,
        el("p", { className: "when" }, el("span", { className: "wide" }, "Handed in "), this.#time,
          ` · no.\u00a0${attempt.id}`),
        el("div", { className: "status" }, this.#said, this.#cancel.element, this.#log)),
      el("div", { className: "notes" }, this.#hint, this.#reason),
      this.#text);
    this.element.dataset.id = attempt.id;
    this.show(attempt);
  }

  /** Show how it stands. */
  show(attempt) {
    this.#attempt = attempt;
    const { tone, title, hint, tile, unit } = words(attempt);
    const name = attempt.title || `Attempt ${attempt.id}`;
    this.element.dataset.tone = tone;
    say(this.#title, name);
    say(this.#tile, tile);
    say(this.#unit, unit);
    this.#time.dateTime = attempt.created_at;
    say(this.#time, moment(attempt.created_at, true));
    say(this.#said, title);
    say(this.#hint, hint);
    say(this.#reason, attempt.state === "failed" && attempt.message ? `What went wrong: ${attempt.message}` : "");
    this.#text.setAttribute("aria-label", `Log of ${name}`);
    const asked = this.#cancel.element.contains(document.activeElement);
    this.#cancel.show(attempt.state === "queued", `${name}, number ${attempt.id}`);
    if (asked && attempt.state !== "queued") this.#title.focus();
    this.#log.hidden = attempt.state !== "done";
    if (this.#shownRun !== attempt.run || attempt.state !== "done") this.#close();
    else this.#label();
  }

  async #stop(acts) {
    this.#title.focus();
    try {
      await acts.cancel(this.#attempt.id);
    } catch (error) {
      say(this.#hint, error.code === "404" ? "Too late: it has ended already." : `Not cancelled: ${error.message}.`);
    }
  }

  async #toggle(acts) {
    if (!this.#text.hidden) return this.#close();
    const { id, run } = this.#attempt;
    this.#shownRun = run;
    this.#text.hidden = false;
    say(this.#text, "…");
    this.#label();
    let text;
    try {
      text = (await acts.log(id)) || "There is no log, or it is kept no more.";
    } catch (error) {
      text = `The log cannot be shown now: ${error.message}`;
    }
    if (this.#shownRun === run) say(this.#text, text);
  }

  #close() {
    this.#shownRun = "";
    this.#text.hidden = true;
    this.#label();
  }

  #label() {
    this.#log.setAttribute("aria-expanded", String(!this.#text.hidden));
    say(this.#log, this.#text.hidden ? "Show log" : "Hide log");
  }
}
