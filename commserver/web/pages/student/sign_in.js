/** The way in: a token, pasted. It is in no address, no storage and no markup of the page. */

import { el, say } from "../dom.js";

export class SignIn {
  #token = el("input", { id: "token", type: "password", required: true, autocomplete: "off",
    spellcheck: false, "aria-describedby": "token-help token-problem" });
  #stay = el("input", { id: "stay", type: "checkbox" });
  #button = el("button", { type: "submit", className: "main" }, "Sign in");
  #problem = el("p", { id: "token-problem", className: "problem", role: "alert" });

  /** @param {(token: string, stay: boolean) => Promise<void>} enter  fails with what to say */
  constructor(enter) {
    const submitted = async (event) => {
      event.preventDefault();
      say(this.#problem, "");
      this.#button.disabled = true;
      try {
        await enter(this.#token.value.trim(), this.#stay.checked);
        this.#token.value = "";
      } catch (error) {
        this.say(error.message);
      } finally {
        this.#button.disabled = false;
      }
    };
    this.element = el("form", { className: "sign-in", noValidate: true, onsubmit: submitted },
      el("h1", {}, "Sign in"),
      el("label", { for: "token" }, "Your token"),
      this.#token,
      el("p", { id: "token-help", className: "help" },
        "Your course page gives it to you. It is like a password: keep it to yourself."),
      el("div", { className: "choice" }, this.#stay,
        el("label", { for: "stay" }, "Stay signed in on this tab")),
      this.#problem,
      this.#button);
  }

  /** Say why one is not in, and be ready for another try. */
  say(problem) {
    this.#token.value = "";
    say(this.#problem, problem);
    this.#token.focus();
  }

  focus() {
    this.#token.focus();
  }
}
