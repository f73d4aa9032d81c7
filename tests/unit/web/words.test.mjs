// What students are told about an attempt.

import assert from "node:assert/strict";
import { test } from "node:test";

const { moment, words } = await import(process.env.WORDS);

const waiting = (place, more = {}) => words({ state: "queued", place, ...more });
const running = (progress) => words({ state: "running", place: 0, progress });
const ended = (status, grade, more = "20") => words({ state: "done", place: 0, status, grade, grade_max: more });

test("a place is said once, and who is next is so in a line of its kind", () => {
  assert.deepEqual(waiting(1), { tone: "waiting", title: "Next in its line", hint: "", tile: "1", unit: "in line" });
  assert.deepEqual(waiting(4), { tone: "waiting", title: "Waiting", hint: "", tile: "4", unit: "in line" });
  assert.equal(waiting(4, { reason: "an engine is away" }).hint, "an engine is away");
});

for (const [progress, hint] of [["0/2", "Step 1 of 2"], ["1/2", "Step 2 of 2"], ["2/2", "Step 2 of 2"],
  ["linking", "linking"], ["1/2 of it", "1/2 of it"], ["", ""], [undefined, ""]]) {
  test(`progress "${progress}" is said as "${hint}"`, () => assert.equal(running(progress).hint, hint));
}

test("a grade is said once", () => {
  const { title, hint, tile, unit } = ended("wrong_answer", "0");
  assert.deepEqual([tile, unit], ["0", "of 20"]);
  assert.doesNotMatch(title + hint, /0/);
});

for (const [status, grade, tone] of [["wrong_answer", "0", "bad"], ["wrong_answer", "12", "near"],
  ["cpu_time", "0.5", "near"], ["wrong_answer", "", "bad"], ["accepted", "20", "good"],
  ["presentation", "0", "near"], ["cancelled", "", "void"]]) {
  test(`${status} with "${grade}" of 20 looks ${tone}`, () => assert.equal(ended(status, grade).tone, tone));
}

test("what did not compile may have met no compiler", () => {
  const { title, hint } = ended("compile_error", "0");
  assert.deepEqual([title, hint], ["It did not compile", ""]);
});

test("moments are told to the second where that is asked for, and with their day if it is another", () => {
  const now = new Date();
  now.setHours(9, 18, 5);
  assert.match(moment(now.toISOString(), true), /^0?9:18:05/);
  assert.match(moment(now.toISOString()), /^0?9:18(?!:)/);
  assert.match(moment("2020-03-04T12:00:00Z"), /2020.*, /);
});
