/** What is said to everybody, for as long as it holds. */

import { el, say } from "../dom.js";
import { moment } from "./words.js";

const LONGEST = 2 ** 31 - 1; // ms that a timer can wait

export class Announcement {
  #text = el("p");
  #until = el("time");
  #over = 0;

  constructor() {
    this.element = el("aside", { className: "announcement", role: "status", "aria-label": "Announcement" },
      this.#text, this.#until);
    this.element.dataset.empty = "";
  }

  /** @param {{text: string, until: string}} announcement  text "" takes it away */
  show({ text, until }) {
    clearTimeout(this.#over);
    say(this.#text, text);
    say(this.#until, text && until ? `until ${moment(until)}` : "");
    this.#until.dateTime = until;
    if (text) delete this.element.dataset.empty;
    else this.element.dataset.empty = "";
    const left = until ? new Date(until) - Date.now() : NaN;
    if (text && left < LONGEST) this.#over = setTimeout(() => this.show({ text: "", until: "" }), left);
  }

  close() {
    clearTimeout(this.#over);
  }
}
