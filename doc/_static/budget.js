// The calculator of stacks/many.html: workers against max_connections. Nothing is sent anywhere.
// A test runs this file in a browser, and the page says the formula in words.
"use strict";

function budget(asked) {
  const pool = asked.pool_size + asked.max_overflow;
  // A thread uses one connection at a time, so a worker opens no more than it has threads.
  const each = Math.min(asked.threads, pool);
  const workers = asked.machines * asked.workers * (asked.overlap ? 2 : 1);
  const most = workers * each;
  const idle = workers * Math.min(asked.threads, asked.pool_size);
  const slots = Math.max(0, asked.max_connections - asked.reserved);
  const fits = Math.floor(slots / workers);
  return { workers, each, pool, most, idle, slots, fits, spare: slots - most };
}

function tell(asked, found) {
  const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;
  const lines = [
    `${count(found.workers, "worker")}, up to ${count(found.each, "connection")} each: ${found.most} at most, ` +
      `${found.idle} kept open when idle.`,
  ];
  if (asked.threads < found.pool)
    lines.push(`${found.pool - asked.threads} of a pool's ${found.pool} are never used: it has ${count(asked.threads, "thread")}.`);
  else if (asked.threads > found.pool)
    lines.push(`${asked.threads} threads share ${found.pool}: the others wait, up to pool_timeout.`);
  if (found.spare < 0 && found.fits >= 1)
    lines.push(`What fits: pool_size + max_overflow of ${found.fits} in each worker.`);
  if (found.fits < 1)
    lines.push("Not even one connection for each worker: fewer workers, or PgBouncer in transaction mode.");
  const verdict =
    found.spare < 0
      ? `Does not fit: ${found.most} wanted, ${found.slots} there. The server refuses ${found.most - found.slots}.`
      : `Fits: ${found.most} of ${found.slots}, ${found.spare} to spare.`;
  return { verdict, lines };
}

function start() {
  const form = document.getElementById("budget");
  if (!form) return;
  const verdict = document.getElementById("budget-verdict");
  const list = form.querySelector("ul");
  let waiting = 0;
  const run = () => {
    const asked = { overlap: form.elements.overlap.checked };
    let wrong = null;
    for (const input of form.querySelectorAll("input[type=number]")) {
      const number = input.value.trim() === "" ? NaN : Number(input.value);
      const good = Number.isInteger(number) && number >= Number(input.min) && number <= 1e6;
      if (good) input.removeAttribute("aria-invalid");
      else input.setAttribute("aria-invalid", "true");
      if (!good && !wrong) wrong = input;
      asked[input.name] = number;
    }
    list.replaceChildren();
    let says = "";
    if (wrong) says = `${wrong.labels[0].textContent}: a whole number, from ${wrong.min}.`;
    else {
      const told = tell(asked, budget(asked));
      says = told.verdict;
      for (const line of told.lines) {
        const item = document.createElement("li");
        item.textContent = line;
        list.append(item);
      }
    }
    if (verdict.textContent !== says) verdict.textContent = says; // a screen reader is told once
  };
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(run, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  run();
}

if (typeof module !== "undefined") module.exports = { budget, tell };
else if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
