/**
 * What students are told, in plain words. `tone` says how it looks: good, near (some of it is right),
 * bad, fault, void.
 */

const STATUS = {
  accepted: ["good", "Accepted", "Everything is as it was asked for."],
  wrong_answer: ["bad", "Wrong answer", "Something that your program gives is not what was asked for."],
  presentation: ["near", "Wrong layout", "The values are right; blanks or line breaks are not."],
  cpu_time: ["bad", "Too slow", "Your program used more processor time than it may."],
  real_time: ["bad", "Took too long", "Your program did not end in time; perhaps it waits for something."],
  memory: ["bad", "Too much memory", "Your program used more memory than it may."],
  output: ["bad", "Too much output", "Your program printed more than it may."],
  runtime_error: ["bad", "Crashed", "Your program ended with an error."],
  compile_error: ["bad", "It did not compile", ""],
  security: ["bad", "Not allowed", "Your program tried something that is not allowed here."],
  cancelled: ["void", "Cancelled", "It was called off and does not count."],
};

const FAULT = {
  teacher: "This is not your fault and does not count against you. Your teacher has to put the exercise right.",
  system: "This is not your fault and does not count against you. Those who run this system have to see to it; hand it in again later.",
};

/** "1/2" is how many steps have ended, and of how many; any other text is for people already. */
function step(progress) {
  const [, ended, all] = /^([0-9]+)\/([0-9]+)$/.exec(progress) ?? [];
  return all ? `Step ${Math.min(Number(ended) + 1, Number(all))} of ${all}` : progress;
}

/** @returns {{tone: string, title: string, hint: string, tile: string, unit: string}} */
export function words(attempt) {
  const { state, place, status, grade, grade_max: most } = attempt;
  if (state === "queued" && place > 0) {
    const title = place === 1 ? "Next in its line" : "Waiting";
    return { tone: "waiting", title, hint: attempt.reason ?? "", tile: `${place}`, unit: "in line" };
  }
  if (state === "queued") return { tone: "waiting", title: "Waiting", hint: "", tile: "…", unit: "" };
  if (state === "leased" || state === "running") {
    return { tone: "running", title: "Running now", hint: step(attempt.progress ?? ""), tile: "", unit: "" };
  }
  if (state === "failed") {
    const hint = FAULT[attempt.fault] ?? FAULT.system;
    return { tone: "fault", title: "Could not be graded", hint, tile: "!", unit: "no grade" };
  }
  const [look, title, hint] = STATUS[status] ?? ["void", status || "Ended", ""];
  const tone = look === "bad" && Number(grade) > 0 ? "near" : look;
  return { tone, title, hint, tile: grade || "–", unit: grade && most ? `of ${most}` : "" };
}

/** The grade as it is read aloud: "18 / 20". */
export function gradeText({ grade, grade_max: most }) {
  return grade && most ? `${grade} / ${most}` : grade;
}

const format = (options) => new Intl.DateTimeFormat(undefined, options);
const TO_MINUTES = { hour: "2-digit", minute: "2-digit" };
const TO_SECONDS = { ...TO_MINUTES, second: "2-digit" };
const DAY = { dateStyle: "medium" };

/** A moment as people here say it. @param {string} iso @param {boolean} seconds  with them, too */
export function moment(iso, seconds = false) {
  const at = new Date(iso);
  const time = format(seconds ? TO_SECONDS : TO_MINUTES).format(at);
  const today = at.toDateString() === new Date().toDateString();
  return today ? time : `${format(DAY).format(at)}, ${time}`;
}
