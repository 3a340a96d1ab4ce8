// Filters and sorts the truth table. Without it the whole table is there.
"use strict";
(() => {
  const form = document.querySelector(".truth-filter");
  if (form) {
    const told = form.querySelector("output");
    const apply = () => {
      const { driver, hazard, recipe } = Object.fromEntries(new FormData(form));
      const failing = form.elements.failing.checked;
      let shown = 0;
      for (const block of document.querySelectorAll(".of-driver")) {
        const hide = driver && block.dataset.driver !== driver;
        block.closest("section").hidden = hide;
        for (const cell of block.querySelectorAll("[data-recipe]")) {
          cell.hidden = Boolean(recipe) && cell.dataset.recipe !== recipe;
        }
        for (const row of block.querySelectorAll("tbody tr")) {
          const cells = [...row.querySelectorAll("td[data-outcome]:not([hidden])")];
          const fails = cells.some((cell) => !["ok", "not-run"].includes(cell.dataset.outcome));
          row.hidden = (Boolean(hazard) && row.dataset.hazard !== hazard) || (failing && !fails);
          if (!hide && !row.hidden) shown += cells.length;
        }
      }
      told.textContent = `${shown} cells`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    const chosen = [...new FormData(form).values()].some(Boolean);  // a browser restores what was chosen
    if (chosen) apply();
    else told.textContent = `${document.querySelectorAll(".of-driver td[data-outcome]").length} cells`;
  }

  // What a link leads to may be folded away, and what is above it not laid out yet: then it would move.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    document.documentElement.classList.add("whole");
    const fold = target.closest("details");
    if (fold) fold.open = true;
    target.scrollIntoView({ block: fold ? "center" : "start", behavior: "instant" });
  };
  addEventListener("hashchange", reveal);

  for (const head of document.querySelectorAll("table.truth th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const column = [...head.parentNode.children].indexOf(head);
      const body = head.closest("table").tBodies[0];
      const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
      const rows = [...body.rows].sort((a, b) => value(a).localeCompare(value(b), undefined, { numeric: true }));
      body.append(...(up ? rows : rows.reverse()));
    });
  }
  reveal();
})();
