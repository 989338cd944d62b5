"use strict";
// Charts are drawn when they come into view, in the colours of the theme; tables are copied as CSV.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Ink and grid of moesim/report/palette.py, and what stands for them on a dark page.
  const DARK = [["#1c2733", "#cdd6e0"], ["#d9dee5", "#36424f"], ["#6b7785", "#93a1b0"], ["#fffffe", "#171e26"]];

  function draw(box, light) {
    let text = document.getElementById(box.dataset.chart).textContent;
    if (dark.matches && !light) {
      for (const [ink, pale] of DARK) text = text.replaceAll(ink, pale);
    }
    box.replaceChildren();
    box.dataset.drawn = "yes";
    return Bokeh.embed.embed_item(JSON.parse(text), box);
  }

  const boxes = Array.from(document.querySelectorAll(".canvas"));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "500px" });
  boxes.forEach((box) => seen.observe(box));
  dark.addEventListener("change", () => boxes.filter((box) => box.dataset.drawn).forEach((box) => draw(box)));
  window.addEventListener("beforeprint", () => boxes.filter((box) => !box.hidden).forEach((box) => draw(box, true)));

  for (const toggle of document.querySelectorAll(".toggle")) {
    const views = Array.from(toggle.parentElement.querySelectorAll(".canvas"));
    const buttons = Array.from(toggle.querySelectorAll("button"));
    for (const button of buttons) {
      button.addEventListener("click", () => {
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        views.forEach((view, index) => { view.hidden = String(index) !== button.dataset.view; });
      });
    }
  }

  // A cell that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay numbers.
  function csvCell(text) {
    const number = text !== "" && Number.isFinite(Number(text));
    const safe = /^[=+\-@\t\r]/.test(text) && !number ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  }

  function csv(table) {
    return Array.from(table.rows, (row) =>
      Array.from(row.cells, (cell) => csvCell(cell.textContent.trim() === "–" ? "" : cell.textContent.trim())).join(",")
    ).join("\r\n") + "\r\n";
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const text = csv(button.closest(".data").querySelector("table"));
      button.dataset.csv = text;
      await copy(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy CSV"; }, 1500);
    });
  }
})();
