/** Says whether what is shown is live. The seconds are for the eye; only changes are read aloud. */

import { el, say } from "../dom.js";

const SAID = {
  connecting: "Connecting…",
  live: "Live",
  waiting: "Reconnecting",
  offline: "Offline",
  refused: "Signed out",
  closed: "Signed out",
};

export class Connection {
  #text = el("span");
  #left = el("span", { "aria-hidden": "true" });
  #ticking = 0;

  constructor() {
    this.element = el("p", { className: "connection", role: "status" }, el("span", {}, this.#text, this.#left));
  }

  /** @param {{state: string, seconds: number}} state */
  show({ state, seconds }) {
    clearInterval(this.#ticking);
    this.element.dataset.state = state;
    // A try in between is no news.
    if (state !== "connecting" || !this.#text.textContent) say(this.#text, SAID[state]);
    const until = Date.now() + seconds * 1000;
    const tick = () => {
      const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
      say(this.#left, seconds ? ` in ${left} s` : "");
    };
    tick();
    if (seconds) this.#ticking = setInterval(tick, 500);
  }

  close() {
    clearInterval(this.#ticking);
  }
}
