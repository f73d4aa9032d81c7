/**
 * A student's live link to commserver: dials its WebSocket, says who is there, tells what happens,
 * and comes back by itself whenever the link is lost.
 *
 *     const link = connect({ url: "wss://judge.example.org:8765", token });
 *     link.addEventListener("place", ({ detail }) => show(detail.attempt, detail.place));
 *     link.addEventListener("final", ({ detail }) => show(detail.attempt, detail.status));
 *
 * Events, each with a `detail`: `state` (LinkState), `place` (Place), `final` (Final: each once),
 * `progress`, `announcement`, `error` (an ERROR that nobody asked for). The token is kept in memory.
 *
 * @typedef {"connecting"|"live"|"waiting"|"offline"|"refused"|"closed"} StateName
 *     waiting: dials again in `seconds`; offline: the same, while the browser has no network;
 *     refused: the token is not valid (`reason`), nothing more is tried; closed: by `close()`.
 * @typedef {{state: StateName, seconds: number, reason: string}} LinkState
 * @typedef {{attempt: string, run: string, place: number, total: string, etaLow: string,
 *     etaHigh: string, reason: string}} Place  place: 1 = the next, 0 = it runs now
 * @typedef {{attempt: string, run: string, seq: number, status: string, grade: string,
 *     code: string, target: string, fault: string, message: string}} Final
 *     status is "" where it could not be graded: then `code`, `target`, `fault` and `message` say
 *     why, and `attempt` is "" where only the run is known.
 * @typedef {{url: string, token: string, shown?: number, WebSocket?: typeof WebSocket,
 *     random?: () => number, page?: EventTarget & {navigator?: Navigator, document?: Document}}}
 *     Options  shown: the highest `seq` that was shown to this account before.
 */

const FIRST_PAUSE = 1_000; // ms; doubled each time, and a random part of it taken
const LONGEST_PAUSE = 30_000; // ms
const ANSWER = 15_000; // ms for the server to open the socket, and to answer a command
const EXERCISE = ["EXERCICE", "EXERCISE"]; // the protocol's own text has both

/** Why a command was not carried out; `packet` is the server's ERROR, null if the link was lost. */
export class CommandFailed extends Error {
  /** @param {string} message @param {?Object<string, string>} packet */
  constructor(message, packet = null) {
    super(message);
    Object.assign(this, { name: "CommandFailed", packet, code: packet?.error_code ?? "" });
  }
}

/** Dial now and keep the link up. @param {Options} options @returns {Link} */
export const connect = (options) => new Link(options);

export class Link extends EventTarget {
  #given; // the options
  #socket = null;
  #timer = 0; // of whatever comes next: a redial, an AUTH said again, a deadline for the opening
  #answerTimer = 0;
  #pause = 0; // how often it was lost in a row
  #pending = []; // commands that were sent, in order: so the answers come
  #asking = new Map(); // attempts whose STATUS was answered with OK, and what comes next is not yet
  #switches = new Map();
  #early = new Set(); // `seq` shown ahead of their turn, since STATUS brought them
  #acked = 0;
  #acking = false; // one ACK at a time: the next has the newest number
  #watching = [];

  /** The highest `seq` that was shown. */
  shown = 0;
  /** @type {LinkState} */
  state = { state: "connecting", seconds: 0, reason: "" };

  /** @param {Options} options */
  constructor(options) {
    super();
    const { WebSocket } = globalThis;
    this.#given = { shown: 0, WebSocket, random: Math.random, page: globalThis, ...options };
    this.shown = this.#given.shown;
    this.#watch();
    this.#dial();
  }

  /** Leave for good, and forget the token. */
  close() {
    this.#end("closed", "");
  }

  /** Ask how it stands with an attempt. @param {string} id @returns {Promise<Place|Final>} */
  async status(id) {
    await this.#ask({ cmd: "STATUS", id: String(id) });
    return new Promise((resolve, reject) => this.#asking.set(String(id), { resolve, reject }));
  }

  /** Call off an attempt that has not ended; fails with code 404 if it has. @param {string} id */
  cancel(id) {
    return this.#ask({ cmd: "CANCEL", id: String(id) });
  }

  /** Be told of the progress of what runs, or not; kept over reconnects. @param {boolean} on */
  progress(on) {
    return this.#switch("PROGRESS", on);
  }

  /** Be told what is said to all, or not; kept over reconnects. @param {boolean} on */
  announcements(on) {
    return this.#switch("ANNOUNCEMENTS", on);
  }

  // -- the socket ---------------------------------------------------------------------------------

  #watch() {
    const { page } = this.#given;
    const { document } = page;
    const on = (target, event, act) => {
      target?.addEventListener?.(event, act);
      this.#watching.push(() => target?.removeEventListener?.(event, act));
    };
    on(page, "online", () => this.#hurry());
    on(page, "offline", () => this.#lost("no network"));
    on(document, "visibilitychange", () => document.visibilityState === "visible" && this.#hurry());
  }

  #dial() {
    this.#drop();
    this.#tell("connecting");
    let socket;
    try {
      socket = this.#socket = new this.#given.WebSocket(this.#given.url);
    } catch (error) { // an address that cannot be dialled, or may not be from this page
      return this.#lost(error.message);
    }
    const mine = (act) => (event) => socket === this.#socket && act(event);
    this.#timer = setTimeout(mine(() => this.#lost("no answer")), ANSWER);
    socket.onopen = mine(() => this.#auth());
    socket.onmessage = mine((event) => this.#heard(event.data));
    socket.onclose = mine(() => this.#lost("the connection was lost"));
  }

  #auth() {
    clearTimeout(this.#timer);
    this.#send({ cmd: "AUTH", TOKEN: this.#given.token }).then(() => this.#live(), (error) => {
      if (error.code === "401") this.#end("refused", error.message);
      else if (error.code) this.#timer = setTimeout(() => this.#auth(), this.#jitter());
    });
  }

  #live() {
    this.#pause = 0;
    this.#tell("live");
    for (const [cmd, on] of this.#switches) this.#send({ cmd, on }).catch(() => {});
  }

  /** Try at once what would be tried later; where the link seems up, see whether it is. */
  #hurry() {
    const { state } = this.state;
    if (state === "waiting" || state === "offline") this.#dial();
    else if (state === "live") this.#ack(true);
  }

  #lost(reason) {
    if (["refused", "closed"].includes(this.state.state)) return;
    this.#drop();
    const pause = this.#jitter();
    const online = this.#given.page.navigator?.onLine ?? true;
    this.#tell(online ? "waiting" : "offline", Math.ceil(pause / 1000), reason);
    this.#timer = setTimeout(() => this.#dial(), pause);
  }

  #end(state, reason) {
    for (const unwatch of this.#watching.splice(0)) unwatch();
    this.#drop();
    this.#given.token = "";
    this.#tell(state, 0, reason);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#answerTimer);
    const socket = this.#socket;
    this.#socket = null;
    this.#acked = 0;
    socket?.close();
    const asked = [...this.#pending.splice(0), ...this.#asking.values()];
    this.#asking.clear();
    for (const { reject } of asked) reject(new CommandFailed("the link was lost"));
  }

  /** Full jitter: so a room full of browsers does not come back in one moment. */
  #jitter() {
    const most = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#pause++);
    return this.#given.random() * most;
  }

  // -- what is said -------------------------------------------------------------------------------

  #ask(packet) {
    if (this.state.state !== "live") return Promise.reject(new CommandFailed("not connected"));
    return this.#send(packet);
  }

  #switch(cmd, on) {
    this.#switches.set(cmd, on ? "1" : "0");
    return this.state.state === "live" ? this.#send({ cmd, on: on ? "1" : "0" }) : Promise.resolve();
  }

  /** Send a command; resolves with OK, and rejects with the ERROR that answers it. */
  #send(packet) {
    return new Promise((resolve, reject) => {
      this.#pending.push({ resolve, reject });
      this.#socket.send(JSON.stringify(packet));
      if (this.#pending.length === 1) this.#await();
    });
  }

  #await() {
    clearTimeout(this.#answerTimer);
    if (this.#pending.length) this.#answerTimer = setTimeout(() => this.#lost("no answer"), ANSWER);
  }

  /** Say what was shown. @param {boolean} again  also when that was said: somebody must answer */
  #ack(again = false) {
    if (this.state.state !== "live" || this.#acking || (this.#acked >= this.shown && !again)) return;
    this.#acking = true;
    this.#acked = this.shown;
    this.#send({ cmd: "ACK", seq: String(this.shown) }).then(
      () => { this.#acking = false; this.#ack(); },
      () => { this.#acking = false; this.#acked = 0; }, // the next final, or link, says it again
    );
  }

  // -- what is heard ------------------------------------------------------------------------------

  #heard(text) {
    let packet;
    try {
      packet = JSON.parse(text);
    } catch {
      return; // nothing that we know; what comes after it may be
    }
    switch (packet?.cmd) {
      case "OK":
        return this.#answered((command) => command.resolve(packet));
      case "PLACE_IN_QUEUE":
        return this.#place(placeOf(packet));
      case "EXERCICE_EXECUTED": case "EXERCISE_EXECUTED":
        return this.#final(packet, packet.id);
      case "PROGRESS":
        return this.#emit("progress", { attempt: attemptOf(packet), run: packet.run,
          stage: packet.stage, text: packet.text });
      case "ANNOUNCEMENT":
        return this.#emit("announcement", { id: packet.id, text: packet.text, until: packet.until });
      case "ERROR":
        return this.#error(packet);
    }
  }

  #error(packet) {
    const about = EXERCISE.includes(packet.target) ? packet.target_id : "";
    if (packet.seq || packet.run) return this.#final(packet, about);
    const failed = new CommandFailed(packet.message || `error ${packet.error_code}`, packet);
    const live = this.state.state === "live";
    if (live && packet.error_code === "401") return this.#end("refused", failed.message);
    if (!this.#answered((command) => command.reject(failed))) this.#emit("error", failed);
  }

  #answered(settle) {
    const command = this.#pending.shift();
    this.#await();
    if (command) settle(command);
    return Boolean(command);
  }

  #place(place) {
    this.#reply(place);
    this.#emit("place", place);
  }

  #final(packet, attempt) {
    const seq = Number(packet.seq || 0);
    const { run = "", status = "", grade = "", target = "", fault = "", message = "" } = packet;
    const final = { attempt, run, seq, status, grade, code: packet.error_code ?? "", target, fault, message };
    const asked = this.#reply(final);
    if (seq ? seq <= this.shown : asked) return seq && this.#ack(true); // say again that it was shown
    if (!this.#early.delete(seq)) this.#emit("final", final);
    if (asked) return this.#early.add(seq); // ACK covers all before it, and those may be to come
    this.shown = Math.max(this.shown, seq);
    this.#ack();
  }

  /** Give whoever asked with STATUS what comes about that attempt; a final may name its run only. */
  #reply(detail) {
    const id = detail.attempt || this.#asking.keys().next().value;
    this.#asking.get(id)?.resolve(detail);
    return this.#asking.delete(id);
  }

  #emit(type, detail) {
    this.dispatchEvent(Object.assign(new Event(type), { detail }));
  }

  #tell(state, seconds = 0, reason = "") {
    this.state = { state, seconds, reason };
    this.#emit("state", this.state);
  }
}

const attemptOf = (packet) => packet.user_exercice_id ?? packet.user_exercise_id;

function placeOf(packet) {
  return { attempt: attemptOf(packet), run: packet.run ?? "",
    place: Number(packet.place), total: packet.total ?? "", etaLow: packet.eta_low ?? "",
    etaHigh: packet.eta_high ?? "", reason: packet.reason ?? "" };
}
