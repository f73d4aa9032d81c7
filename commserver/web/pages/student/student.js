/** The students' page: who is here, and the parts that show it. */

import { connect } from "../../client/commserver.js";
import * as api from "../api.js";
import { el, say } from "../dom.js";
import { Announcement } from "./announcement.js";
import { Attempts } from "./attempts.js";
import { Connection } from "./connection.js";
import * as session from "./session.js";
import { SignIn } from "./sign_in.js";

const main = document.querySelector("main");
const account = document.querySelector("#account");
const aloud = document.querySelector("#aloud");
const NOT_VALID = "This token is not valid, or not any more. Get a new one on your course page.";

const signIn = new SignIn(enter);
let leave = () => {};

/** Show the way in. @param {string} problem  why one is out */
function outside(problem = "") {
  leave();
  leave = () => {};
  session.forget();
  account.replaceChildren();
  main.replaceChildren(signIn.element);
  document.title = "My attempts";
  signIn.say(problem);
}

/** Let somebody in. Fails with what to tell them. */
async function enter(token, stay) {
  if (!token) throw new Error("Paste your token first.");
  if (!/^[\x21-\x7e]+$/.test(token)) throw new Error("This is no token: it has blanks or letters that none has.");
  const url = await api.websocketUrl();
  let who;
  try {
    who = await api.me(token);
  } catch (error) {
    if (error.code === "401") throw new Error(NOT_VALID);
    throw new Error(`You cannot be let in now: ${error.message}`);
  }
  if (stay) session.keep(token);
  inside(url, token, who.name);
}

/** Show what there is of whoever has this token, until they leave. */
function inside(url, token, name) {
  leave();
  let here = true;
  const link = connect({ url, token });
  const connection = new Connection();
  const announcement = new Announcement();
  const attempts = new Attempts({
    list: () => api.attempts(token).catch((error) => {
      if (here && error.code === "401") outside(NOT_VALID);
      throw error;
    }),
    log: async (id) => (await api.attempt(token, id)).log,
    cancel: (id) => link.cancel(id),
  }, (text) => say(aloud, text));
  const titled = () => {
    document.title = attempts.nearest ? `${attempts.nearest} in line · My attempts` : "My attempts";
  };

  const heard = {
    state: ({ detail }) => {
      connection.show(detail);
      if (detail.state === "live") attempts.load().then(titled);
      if (detail.state === "refused") outside(NOT_VALID);
    },
    place: ({ detail }) => { attempts.place(detail); titled(); },
    progress: ({ detail }) => { attempts.progress(detail); titled(); },
    final: ({ detail }) => { attempts.final(detail); titled(); },
    announcement: ({ detail }) => announcement.show(detail),
  };
  for (const [event, act] of Object.entries(heard)) link.addEventListener(event, act);
  leave = () => {
    here = false;
    for (const [event, act] of Object.entries(heard)) link.removeEventListener(event, act);
    link.close();
    connection.close();
    announcement.close();
    say(aloud, "");
  };
  link.progress(true);
  link.announcements(true);

  connection.show(link.state);
  account.replaceChildren(
    el("p", { className: "who", title: name && `Signed in as ${name}` }, name), connection.element,
    el("button", { type: "button", className: "quiet", onclick: () => outside() }, "Sign out"));
  main.replaceChildren(announcement.element, attempts.element);
  attempts.heading.focus();
}

const token = session.kept();
outside();
if (token) {
  enter(token, true).catch((error) => signIn.say(error.message));
}
