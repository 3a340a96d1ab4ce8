// The paste box of symptoms.html: the same data and the same steps as poolfork/explain.py, in the page.
// Nothing is sent anywhere. A test runs this file with Node.js and compares.
"use strict";

const LONGEST = 2000000;
const TRACEBACK = /Traceback \(most recent call last\)| File "/;

function tail(text) {
  if (text.length <= LONGEST) return text;
  return Array.from(text).slice(-LONGEST).join("");
}

function normal(text) {
  return tail(text)
    .replace(/\x1b\[[0-9;]*[A-Za-z]/g, "")
    .replace(/[\u2018\u2019\u02bc]/g, "'")
    .replace(/[\u201c\u201d]/g, '"')
    .replace(/&quot;|&#34;|&#x22;/g, '"')
    .replace(/&#39;|&#x27;|&apos;/g, "'")
    .replace(/&lt;/g, "<")
    .replace(/&gt;/g, ">")
    .replace(/&amp;/g, "&")
    .replace(/\\+[nrt]/g, " ")
    .replace(/\\+(?=["'])/g, "")
    .replace(/(^|\n)[ \t]*[>|][>| \t]*/g, "$1")
    .replace(/[\u2500-\u257f]+/g, " ")
    .replace(/[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+/g, " ")
    .replace(/[^\x00-\x7f]/gu, "?")
    .replace(/^ +| +$/g, "");
}

function explain(pasted, data) {
  let text = normal(pasted);
  const whole = text;
  const stacks = data.stack.filter((one) => new RegExp(one.pattern, "i").test(whole)).map((one) => one.name);
  const isTraceback = TRACEBACK.test(whole);
  const others = data.other.filter((other) => {
    const before = text;
    for (const pattern of other.patterns) text = text.replace(new RegExp(pattern, "gi"), "|");
    return text !== before;
  });
  const matches = [];
  data.symptom.forEach((symptom, number) => {
    if (isTraceback && symptom.needs && !new RegExp(symptom.needs, "i").test(whole)) return;
    let first = null;
    for (const pattern of symptom.patterns) {
      const hit = new RegExp(pattern, "i").exec(text);
      if (hit && (first === null || hit.index < first.index)) first = hit;
    }
    if (first) matches.push({ symptom, number, at: first.index, matched: first[0].slice(0, 200) });
  });
  matches.sort((a, b) => b.symptom.sure - a.symptom.sure || a.at - b.at || a.number - b.number);
  return { matches, others, stacks };
}

const SURE = { 3: "hardly anything else prints this", 2: "likely, on a stack that forks", 1: "possible" };

function element(name, text, into) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (into) into.append(made);
  return made;
}

// A screen reader is told the summary; the results wait below it.
function show(answer, data, status, output) {
  output.replaceChildren();
  const count = answer.matches.length;
  const summary =
    count === 0
      ? answer.others.length
        ? "Known, with another cause than a shared connection."
        : "No known text of a shared connection."
      : `${count} symptom${count > 1 ? "s" : ""} of a shared connection, surest first.`;
  if (status.textContent !== summary) status.textContent = summary;
  const list = count ? element("ol", "", output) : null;
  const told = new Set();
  for (const match of answer.matches) {
    const item = element("li", "", list);
    const link = element("a", match.symptom.title, item);
    link.href = "#" + match.symptom.id;
    element("span", ` (${SURE[match.symptom.sure]})`, item);
    element("br", "", item);
    element("code", match.matched, item);
    if (!told.has(match.symptom.fix)) {
      const fix = data.fix[match.symptom.fix];
      element("p", `${fix.title}. ${fix.text}`, item);
      told.add(match.symptom.fix);
    }
  }
  for (const other of answer.others) element("p", `${other.title}. ${other.says}`, output);
  if (answer.stacks.length) element("p", `The text names what forks: ${answer.stacks.join(", ")}.`, output);
  if (!count && !answer.others.length) {
    const p = element("p", "That does not rule one out: ", output);
    const link = element("a", "how to tell a shared connection from other causes", p);
    link.href = "#no-match";
    p.append(".");
  }
}

function start() {
  const box = document.getElementById("symptom-box");
  const source = document.getElementById("symptom-data");
  if (!box || !source) return;
  const data = JSON.parse(source.textContent);
  const text = box.querySelector("textarea");
  const status = box.querySelector("[role=status]");
  const output = status.nextElementSibling;
  let waiting = 0;
  const run = () => {
    if (text.value.trim()) return show(explain(text.value, data), data, status, output);
    status.textContent = "";
    output.replaceChildren();
  };
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(run, 200);
  });
  box.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  box.querySelector("form").addEventListener("reset", () => setTimeout(run, 0));
  run(); // what the browser kept from before
  addEventListener("hashchange", openForced);
  openForced();
}

// A link to how a text was forced opens it.
function openForced() {
  const forced = location.hash.startsWith("#forced-") && document.getElementById(location.hash.slice(1));
  if (forced) forced.open = true;
}

if (typeof module !== "undefined") module.exports = { explain, normal };
else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
