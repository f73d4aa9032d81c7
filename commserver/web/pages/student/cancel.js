/** The button that calls an attempt off. It asks once more first, in the button's own place. */

import { el } from "../dom.js";

export class Cancel {
  #button = el("button", { type: "button", className: "quiet", onclick: () => this.#ask(true) }, "Cancel");
  #no = el("button", { type: "button", className: "quiet", onclick: () => this.#ask(false) }, "No");
  #question = el("span", { className: "question", role: "group", hidden: true,
    onkeydown: ({ key }) => key === "Escape" && this.#ask(false) },
  el("span", {}, "Call it off?"),
  el("button", { type: "button", className: "quiet", onclick: () => this.#do() }, "Yes"),
  this.#no);
  #act;

  /** @param {() => Promise<void>} act  what Yes does: it moves the focus, and must not fail */
  constructor(act) {
    this.#act = act;
    this.element = el("span", { className: "cancel" }, this.#button, this.#question);
  }

  /** @param {boolean} possible  whether there is anything to call off @param {string} name  of it */
  show(possible, name) {
    this.#button.setAttribute("aria-label", `Cancel ${name}`);
    this.#question.setAttribute("aria-label", `Call off ${name}?`);
    if (!possible) this.#close();
    this.element.hidden = !possible;
  }

  // The focus is on No, which is where the button was: neither a double click nor a key that is
  // held down says Yes.
  #ask(open) {
    this.#button.hidden = open;
    this.#question.hidden = !open;
    (open ? this.#no : this.#button).focus();
  }

  async #do() {
    this.#close();
    this.#button.disabled = true;
    await this.#act();
    this.#button.disabled = false;
  }

  #close() {
    this.#button.hidden = false;
    this.#question.hidden = true;
  }
}
