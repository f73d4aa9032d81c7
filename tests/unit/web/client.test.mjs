// The client of commserver/web/client against a fake WebSocket, with time driven by hand.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

const { connect } = await import(process.env.CLIENT);

/** Time that passes when it is told to. */
const clock = {
  now: 0,
  due: new Map(),
  last: 0,
  reset() {
    this.due.clear();
    globalThis.setTimeout = (act, delay) => {
      this.last += 1;
      this.due.set(this.last, { act, at: this.now + delay });
      return this.last;
    };
    globalThis.clearTimeout = (timer) => this.due.delete(timer);
  },
  tick(milliseconds) {
    const until = this.now + milliseconds;
    for (;;) {
      const [next] = [...this.due].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at);
      if (!next) break;
      this.now = next[1].at;
      this.due.delete(next[0]);
      next[1].act();
    }
    this.now = until;
  },
};

/** A socket that its server's side is played for. */
class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }

  sent = [];
  closed = false;

  constructor(url) {
    if (url === "wrong") throw new SyntaxError("no address");
    this.url = url;
    FakeSocket.all.push(this);
  }

  send(text) {
    assert.equal(this.closed, false);
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  open() {
    this.onopen();
  }

  async says(...packets) {
    for (const packet of packets) {
      this.onmessage({ data: typeof packet === "string" ? packet : JSON.stringify(packet) });
      await settle();
    }
  }

  async drops() {
    this.closed = true;
    this.onclose({ code: 1006 });
    await settle();
  }

  said(cmd) {
    return this.sent.filter((packet) => packet.cmd === cmd);
  }
}

class FakePage extends EventTarget {
  navigator = { onLine: true };
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });

  tell(target, event) {
    target.dispatchEvent(new Event(event));
  }
}

const OK = { cmd: "OK" };
const done = (seq, more = {}) => ({ cmd: "EXERCICE_EXECUTED", id: "42", run: "r1", status: "accepted",
  grade: "20", seq: String(seq), ...more });
const settle = async () => { for (let turn = 0; turn < 10; turn += 1) await Promise.resolve(); };

let page, link, events;

function dial(options = {}) {
  page = new FakePage();
  events = [];
  link = connect({ url: "ws://here", token: "s3cret", WebSocket: FakeSocket, page, random: () => 1, ...options });
  for (const type of ["state", "place", "final", "error", "announcement", "progress"]) {
    link.addEventListener(type, ({ detail }) => events.push([type, detail]));
  }
}

async function live(options) {
  dial(options);
  FakeSocket.last.open();
  await FakeSocket.last.says(OK);
}

const of = (type) => events.filter(([one]) => one === type).map(([, detail]) => detail);
const acks = () => FakeSocket.all.flatMap((socket) => socket.said("ACK").map(({ seq }) => seq));

beforeEach(() => {
  clock.reset();
  FakeSocket.all = [];
});

test("AUTH is the first thing that is said, and the token is in no address", () => {
  dial();
  assert.deepEqual(FakeSocket.last.sent, []);
  FakeSocket.last.open();
  assert.deepEqual(FakeSocket.last.sent, [{ cmd: "AUTH", TOKEN: "s3cret" }]);
  assert.equal(FakeSocket.last.url, "ws://here");
  assert.equal(JSON.stringify(link).includes("s3cret"), false);
});

test("it is live after OK", async () => {
  dial();
  assert.equal(link.state.state, "connecting");
  FakeSocket.last.open();
  assert.equal(link.state.state, "connecting");
  await FakeSocket.last.says(OK);
  assert.equal(link.state.state, "live");
});

test("a place is told with numbers where they are some", async () => {
  await live();
  await FakeSocket.last.says({ cmd: "PLACE_IN_QUEUE", user_exercice_id: "42", place: "3", run: "r1", total: "9", reason: "x" });
  assert.deepEqual(of("place"), [{ attempt: "42", run: "r1", place: 3, total: "9", etaLow: "", etaHigh: "", reason: "x" }]);
});

test("a final is told, then acknowledged", async () => {
  await live();
  link.addEventListener("final", () => assert.deepEqual(acks(), []));
  await FakeSocket.last.says(done(17));
  assert.equal(of("final")[0].status, "accepted");
  assert.equal(of("final")[0].seq, 17);
  assert.deepEqual(acks(), ["17"]);
});

test("each final is told once, also when it is replayed on another socket, and acknowledged again", async () => {
  await live();
  await FakeSocket.last.says(done(1), OK, done(2));
  await FakeSocket.last.drops();
  clock.tick(1_000);
  FakeSocket.last.open();
  await FakeSocket.last.says(OK, done(1), done(2), done(3), OK);
  assert.deepEqual(of("final").map(({ seq }) => seq), [1, 2, 3]);
  assert.equal(acks().at(-1), "3");
  assert.equal(link.shown, 3);
});

test("a final whose receipt was lost is acknowledged again", async () => {
  await live();
  await FakeSocket.last.says(done(2));
  await FakeSocket.last.drops();
  clock.tick(1_000);
  FakeSocket.last.open();
  await FakeSocket.last.says(OK, done(2));
  assert.deepEqual(acks(), ["2", "2"]);
  await FakeSocket.last.says(OK);
  assert.equal(of("final").length, 1);
});

test("what was shown before is not told again", async () => {
  await live({ shown: 5 });
  await FakeSocket.last.says(done(5), done(6));
  assert.deepEqual(of("final").map(({ seq }) => seq), [6]);
});

test("one ACK is on its way at a time, the next has the newest number", async () => {
  await live();
  await FakeSocket.last.says(done(1), done(2), done(3));
  assert.deepEqual(acks(), ["1"]);
  await FakeSocket.last.says(OK);
  assert.deepEqual(acks(), ["1", "3"]);
  await FakeSocket.last.says(OK);
  assert.deepEqual(acks(), ["1", "3"]);
});

test("a server that knows no numbers is understood: nothing is acknowledged", async () => {
  await live();
  await FakeSocket.last.says({ cmd: "EXERCICE_EXECUTED", id: "42" });
  assert.equal(of("final")[0].attempt, "42");
  assert.deepEqual(acks(), []);
});

for (const target of ["EXERCICE", "EXERCISE"]) {
  test(`the ERROR that ends a run is a final, spelt ${target}`, async () => {
    await live();
    await FakeSocket.last.says({ cmd: "ERROR", error_code: "500", target, target_id: "42", run: "r1", seq: "4",
      message: "no grader", fault: "teacher" });
    const [final] = of("final");
    assert.deepEqual([final.attempt, final.code, final.fault, final.status], ["42", "500", "teacher", ""]);
    assert.deepEqual(acks(), ["4"]);
    assert.deepEqual(of("error"), []);
  });
}

test("EXERCISE_EXECUTED and user_exercise_id are understood too", async () => {
  await live();
  await FakeSocket.last.says({ ...done(1), cmd: "EXERCISE_EXECUTED" },
    { cmd: "PLACE_IN_QUEUE", user_exercise_id: "7", place: "1" });
  assert.equal(of("final").length, 1);
  assert.equal(of("place")[0].attempt, "7");
});

test("a final of a container names its run only", async () => {
  await live();
  await FakeSocket.last.says({ cmd: "ERROR", error_code: "500", target: "CONTAINER", target_id: "abc", run: "r1", seq: "1", fault: "system" });
  assert.deepEqual([of("final")[0].attempt, of("final")[0].run], ["", "r1"]);
});

test("answers belong to commands in their order", async () => {
  await live();
  const first = link.cancel("1");
  const second = link.cancel("2");
  assert.deepEqual(FakeSocket.last.said("CANCEL").map(({ id }) => id), ["1", "2"]);
  await FakeSocket.last.says({ cmd: "ERROR", error_code: "404", target: "EXERCICE", target_id: "1", message: "nothing is left" }, OK);
  await assert.rejects(first, { code: "404", message: "nothing is left" });
  await second;
  assert.deepEqual(of("error"), []);
});

test("status gives the place, or how it ended", async () => {
  await live();
  const place = link.status("42");
  await FakeSocket.last.says(OK, { cmd: "PLACE_IN_QUEUE", user_exercice_id: "42", place: "2" });
  assert.equal((await place).place, 2);
  await FakeSocket.last.says(done(1), OK);
  const final = link.status(42);
  assert.deepEqual(FakeSocket.last.said("STATUS").at(-1), { cmd: "STATUS", id: "42" });
  await FakeSocket.last.says(OK, done(1));
  assert.equal((await final).grade, "20");
  assert.equal(of("final").length, 1);
});

test("a final that status brings ahead of its turn hides none before it", async () => {
  await live();
  const final = link.status("42");
  await FakeSocket.last.says(OK, done(2));
  assert.equal((await final).seq, 2);
  assert.deepEqual([of("final").map(({ seq }) => seq), acks()], [[2], []]);
  await FakeSocket.last.says(done(1, { id: "41", run: "r0" }));
  assert.deepEqual([of("final").map(({ seq }) => seq), acks()], [[2, 1], ["1"]]);
  await FakeSocket.last.says(OK, done(2));
  assert.deepEqual([of("final").map(({ seq }) => seq), acks()], [[2, 1], ["1", "2"]]);
});

test("status gives also a final whose number is not known any more", async () => {
  await live();
  const final = link.status("42");
  await FakeSocket.last.says(OK, { cmd: "ERROR", error_code: "500", target: "CONTAINER", target_id: "abc", run: "r1", seq: "" });
  assert.equal((await final).code, "500");
  assert.deepEqual(of("final"), []);
});

test("progress and announcements are asked for again on each new socket", async () => {
  dial();
  await link.progress(true);
  await link.announcements(true);
  for (const _ of [1, 2]) {
    FakeSocket.last.open();
    await FakeSocket.last.says(OK, OK, OK, { cmd: "ANNOUNCEMENT", id: "1", text: "ten minutes left", until: "" });
    assert.deepEqual(FakeSocket.last.sent.slice(1), [{ cmd: "PROGRESS", on: "1" }, { cmd: "ANNOUNCEMENTS", on: "1" }]);
    await FakeSocket.last.drops();
    clock.tick(30_000);
  }
  assert.equal(of("announcement")[0].text, "ten minutes left");
});

test("progress can be switched off", async () => {
  await live();
  const off = link.progress(false);
  await FakeSocket.last.says(OK, { cmd: "PROGRESS", user_exercice_id: "42", run: "r1", stage: "run", text: "case 2 of 5" });
  await off;
  assert.deepEqual(FakeSocket.last.said("PROGRESS"), [{ cmd: "PROGRESS", on: "0" }]);
  assert.equal(of("progress")[0].text, "case 2 of 5");
});

test("it dials again after pauses that grow to half a minute", async () => {
  dial();
  const pauses = [];
  for (let lost = 0; lost < 7; lost += 1) {
    await FakeSocket.last.drops();
    const dialled = FakeSocket.all.length;
    const { seconds, state } = link.state;
    assert.equal(state, "waiting");
    clock.tick(seconds * 1000 - 1);
    assert.equal(FakeSocket.all.length, dialled);
    clock.tick(1);
    assert.equal(FakeSocket.all.length, dialled + 1);
    pauses.push(seconds);
  }
  assert.deepEqual(pauses, [1, 2, 4, 8, 16, 30, 30]);
});

test("pauses have full jitter", async () => {
  dial({ random: () => 0.25 });
  await FakeSocket.last.drops();
  clock.tick(249);
  assert.equal(FakeSocket.all.length, 1);
  clock.tick(1);
  assert.equal(FakeSocket.all.length, 2);
});

test("once it was live pauses are short again", async () => {
  dial();
  for (let lost = 0; lost < 3; lost += 1) {
    await FakeSocket.last.drops();
    clock.tick(30_000);
  }
  FakeSocket.last.open();
  await FakeSocket.last.says(OK);
  await FakeSocket.last.drops();
  assert.equal(link.state.seconds, 1);
});

test("it dials at once when the browser is online, or looked at, again", async () => {
  dial();
  await FakeSocket.last.drops();
  page.tell(page, "online");
  assert.equal(FakeSocket.all.length, 2);
  await FakeSocket.last.drops();
  page.document.visibilityState = "hidden";
  page.tell(page.document, "visibilitychange");
  assert.equal(FakeSocket.all.length, 2);
  page.document.visibilityState = "visible";
  page.tell(page.document, "visibilitychange");
  assert.equal(FakeSocket.all.length, 3);
  clock.tick(14_000); // the timer of the pause is gone
  assert.equal(FakeSocket.all.length, 3);
});

test("a browser without a network says so, and tries all the same", async () => {
  await live();
  page.navigator.onLine = false;
  page.tell(page, "offline");
  assert.equal(link.state.state, "offline");
  assert.equal(FakeSocket.all[0].closed, true);
  clock.tick(1_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("a link that seems up is asked when somebody looks again, and given up if it is silent", async () => {
  await live();
  page.tell(page.document, "visibilitychange");
  assert.deepEqual(acks(), ["0"]);
  await FakeSocket.last.says(OK);
  clock.tick(20_000);
  assert.equal(link.state.state, "live");
  page.tell(page.document, "visibilitychange");
  clock.tick(15_000);
  assert.equal(link.state.state, "waiting");
});

test("a server that does not open the socket, or does not answer AUTH, is given up", async () => {
  dial();
  clock.tick(15_000);
  assert.equal(link.state.state, "waiting");
  clock.tick(1_000);
  FakeSocket.last.open();
  clock.tick(15_000);
  assert.equal(link.state.state, "waiting");
});

test("after 401 nothing more is tried, and why is told", async () => {
  dial();
  FakeSocket.last.open();
  await FakeSocket.last.says({ cmd: "ERROR", error_code: "401", target: "OTHER", target_id: "", message: "this token is not valid" });
  assert.deepEqual(link.state, { state: "refused", seconds: 0, reason: "this token is not valid" });
  assert.equal(FakeSocket.last.closed, true);
  clock.tick(60_000);
  page.tell(page, "online");
  assert.equal(FakeSocket.all.length, 1);
});

test("a token that is not valid any more ends it too", async () => {
  await live();
  await FakeSocket.last.says({ cmd: "ERROR", error_code: "401", target: "OTHER", target_id: "", message: "gone" });
  assert.equal(link.state.state, "refused");
});

for (const code of ["500", "429"]) {
  test(`AUTH is said again on the same socket after ${code}`, async () => {
    dial();
    FakeSocket.last.open();
    await FakeSocket.last.says({ cmd: "ERROR", error_code: code, target: "OTHER", target_id: "" });
    assert.equal(FakeSocket.last.said("AUTH").length, 1);
    clock.tick(1_000);
    assert.equal(FakeSocket.last.said("AUTH").length, 2);
    await FakeSocket.last.says(OK);
    assert.equal(link.state.state, "live");
    assert.equal(FakeSocket.all.length, 1);
  });
}

test("commands fail while there is no link, and when it is lost", async () => {
  dial();
  await assert.rejects(link.cancel("1"), { message: "not connected", code: "" });
  FakeSocket.last.open();
  await FakeSocket.last.says(OK);
  const cancelled = link.cancel("1");
  const asked = link.status("2");
  await FakeSocket.last.drops();
  await assert.rejects(cancelled, { message: "the link was lost" });
  await assert.rejects(asked, { message: "the link was lost" });
});

test("what an old socket still says is not heard", async () => {
  await live();
  const old = FakeSocket.last;
  await old.drops();
  clock.tick(1_000);
  await old.says(done(1));
  assert.deepEqual(of("final"), []);
});

test("nonsense is passed over", async () => {
  await live();
  await FakeSocket.last.says("{", "null", "7", { cmd: "LATER" }, done(1));
  assert.equal(of("final").length, 1);
  assert.equal(link.state.state, "live");
});

test("an error that nobody asked for is told", async () => {
  await live();
  await FakeSocket.last.says({ cmd: "ERROR", error_code: "400", target: "OTHER", target_id: "", message: "too long" });
  assert.equal(of("error")[0].message, "too long");
});

test("an address that cannot be dialled is a lost link", () => {
  dial({ url: "wrong" });
  assert.deepEqual([link.state.state, link.state.reason], ["waiting", "no address"]);
});

test("closed is closed", async () => {
  await live();
  link.close();
  assert.equal(link.state.state, "closed");
  assert.equal(FakeSocket.last.closed, true);
  page.tell(page, "online");
  clock.tick(60_000);
  assert.equal(FakeSocket.all.length, 1);
});
