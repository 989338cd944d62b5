"use strict";
// Charts are drawn when they come into view, in the colours of the theme; tables are copied as CSV.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Ink and grid of moesim/report/palette.py, and what stands for them on a dark page.
  const DARK = [["#1c2733", "#cdd6e0"], ["#d9dee5", "#36424f"], ["#6b7785", "#93a1b0"], ["#fffffe", "#171e26"]];

  function draw(box) {
    let text = document.getElementById(box.dataset.chart).textContent;
    if (dark.matches) {
      for (const [ink, pale] of DARK) text = text.replaceAll(ink, pale);
    }
    box.replaceChildren();
    box.dataset.drawn = "yes";
    const root = JSON.parse(text);
    return Bokeh.embed.embed_item({ root_id: root.id, doc: { version: Bokeh.version, title: "", roots: [root] } }, box);
  }

  const boxes = Array.from(document.querySelectorAll(".canvas"));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "500px" });
  boxes.forEach((box) => seen.observe(box));
  dark.addEventListener("change", () => boxes.filter((box) => box.dataset.drawn).forEach((box) => draw(box)));

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

  // What a cell holds: its plain number where the text is written for people.
  function cellText(cell) {
    const text = cell.dataset.value ?? cell.textContent.trim();
    return text === "–" ? "" : text;
  }

  function csv(table) {
    return Array.from(table.rows).filter((row) => !row.hidden).map((row) =>
      Array.from(row.cells, (cell) => csvCell(cellText(cell))).join(",")
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

  // A sweep: a point chosen in a map or in the table is shown in its card.
  const card = document.getElementById("point");
  if (card) {
    const points = JSON.parse(document.getElementById("json-points").textContent);
    const maps = Array.from(document.querySelectorAll(".map-panel"));
    const sortable = document.querySelector(".sortable");
    const body = sortable.tBodies[0];

    const choose = (point) => {
      const texts = points[point];
      if (!texts) return;
      for (const place of card.querySelectorAll("[data-field]")) place.textContent = texts[place.dataset.field];
      card.querySelector(".error").hidden = !texts[2];
      for (const button of document.querySelectorAll("[data-point]")) {
        const chosen = button.dataset.point === point;
        button.setAttribute("aria-pressed", String(chosen));
        if (button.classList.contains("row-point")) button.closest("tr").classList.toggle("chosen", chosen);
      }
    };

    // One stop of the Tab key per map; arrows move within it.
    const stop = (panel, cell) => {
      panel.querySelectorAll(".point").forEach((other) => { other.tabIndex = other === cell ? 0 : -1; });
    };
    for (const panel of maps) {
      const cells = Array.from(panel.querySelectorAll(".point"));
      stop(panel, cells.find((cell) => cell.getAttribute("aria-pressed") === "true") ?? cells[0]);
      panel.addEventListener("focusin", (event) => { if (event.target.matches(".point")) stop(panel, event.target); });
      panel.addEventListener("keydown", (event) => {
        const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
        const cell = event.target.closest("td");
        if (!cell || (!down && !right)) return;
        event.preventDefault();
        let row = cell.parentElement.sectionRowIndex + down, column = cell.cellIndex + right;
        const rows = cell.closest("tbody").rows;
        while (rows[row] && rows[row].cells[column]) {
          const next = rows[row].cells[column].querySelector(".point");
          if (next) { next.focus(); return; }
          row += down;
          column += right;
        }
      });
    }

    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-point]");
      const row = event.target.closest(".sortable tbody tr");
      if (button) choose(button.dataset.point);
      else if (row) choose(row.querySelector("[data-point]").dataset.point);
    });

    const held = Array.from(document.querySelectorAll(".held select"));
    held.forEach((select) => select.addEventListener("change", () => {
      const wanted = held.map((one) => one.value).join(",");
      maps.forEach((panel) => { panel.hidden = panel.dataset.held !== wanted; });
    }));

    const copyCommand = card.querySelector(".copy-command");
    copyCommand.addEventListener("click", async () => {
      await copy(card.querySelector(".command").textContent);
      copyCommand.textContent = "Copied";
      setTimeout(() => { copyCommand.textContent = "Copy"; }, 1500);
    });

    const filter = document.querySelector(".filter input");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const pairs = row.dataset.words.toLowerCase().split("\n");
        const text = row.textContent.toLowerCase() + "\n" + pairs.join("\n");
        row.hidden = !words.every((word) => word.includes("=")
          ? pairs.some((pair) => pair === word || pair.endsWith("." + word)) : text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      document.getElementById("shown").textContent = `${shown} of ${body.rows.length} points`;
    });

    const headings = Array.from(sortable.tHead.rows[0].cells);
    headings.forEach((heading, index) => heading.addEventListener("click", () => {
      const way = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[index].dataset.value;
      const rows = Array.from(body.rows);
      const numbers = rows.every((row) => Number.isFinite(Number(key(row))));
      rows.sort((a, b) => {
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // nothing comes last
        return way * (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), "en", { numeric: true }));
      });
      body.append(...rows);
    }));
    choose(body.querySelector("[aria-pressed='true']")?.dataset.point ?? "");
  }
})();
