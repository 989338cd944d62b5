// Charts are drawn when they come into view, in the colours of the theme; tables are copied as CSV.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Ink and grid of moesim/report/palette.py, and what stands for them on a dark page.
  const DARK = [["#1c2733", "#cdd6e0"], ["#d9dee5", "#36424f"], ["#6b7785", "#93a1b0"], ["#fffffe", "#3a4653"]];

  function draw(box) {
    let text = document.getElementById(box.dataset.chart).textContent;
    if (dark.matches) {
      for (const [ink, pale] of DARK) text = text.replaceAll(ink, pale);
    }
    box.replaceChildren();
    box.dataset.drawn = "yes";
    box.dataset.width = box.clientWidth;
    const root = axes.fitted(JSON.parse(text), box.clientWidth);
    return Bokeh.embed.embed_item({ root_id: root.id, doc: { version: Bokeh.version, title: "", roots: [root] } }, box);
  }

  const boxes = Array.from(document.querySelectorAll(".canvas"));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
    }
  }, { rootMargin: "500px" });
  boxes.forEach((box) => seen.observe(box));
  const again = (changed) => boxes.filter((box) => box.dataset.drawn && changed(box)).forEach(draw);
  dark.addEventListener("change", () => again(() => true));
  // A phone that is turned: other ticks have room.
  let settled = 0;
  window.addEventListener("resize", () => {
    clearTimeout(settled);
    settled = setTimeout(() => again((box) => box.clientWidth && Math.abs(box.clientWidth - box.dataset.width) > 60), 300);
  });

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

  // The same in SI units, where the column's heading has a prefix.
  function cellNumber(cell, heading) {
    const text = cellText(cell), scale = Number(heading.dataset.scale ?? 1);
    return scale === 1 || text === "" || !Number.isFinite(Number(text)) ? text : String(Number((Number(text) * scale).toPrecision(12)));
  }

  // Rows shown, in the order shown. An interval is two more columns; units that differ between the rows are the last one.
  function csv(table) {
    const rows = Array.from(table.tBodies[0].rows).filter((row) => !row.hidden);
    const columns = Array.from(table.tHead.rows[0].cells).flatMap((heading, i) => {
      const name = heading.dataset.copied ?? heading.textContent.trim();
      const column = [{ name, text: (row) => cellNumber(row.cells[i], heading) }];
      if (!rows.some((row) => row.cells[i].dataset.low !== undefined)) return column;
      const [, word, unit] = name.match(/^(.*?)( \([^()]*\))?$/);
      return column.concat(["low", "high"].map((end) => (
        { name: `${word}, ${end}${unit ?? ""}`, text: (row) => row.cells[i].dataset[end] ?? "" })));
    });
    const units = (row) => [...new Set(Array.from(row.cells, (cell) => cell.dataset.unit).filter(Boolean))].join(" ");
    if (rows.some(units)) columns.push({ name: "unit", text: units });
    const lines = [columns.map((column) => column.name), ...rows.map((row) => columns.map((column) => column.text(row)))];
    return lines.map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n";
  }

  // Words of the filter: all must be in the row; key=value is the heading, or an axis of the sweep, with that very value.
  function filter(table, text, status) {
    const names = Array.from(table.tHead.rows[0].cells, (heading) => heading.textContent.trim().toLowerCase());
    const words = text.toLowerCase().split(/\s+/).filter(Boolean), rows = Array.from(table.tBodies[0].rows);
    for (const row of rows) {
      const cells = Array.from(row.cells, (cell) => cell.textContent.trim().toLowerCase());
      const pairs = [...(row.dataset.words ?? "").toLowerCase().split("\n"), ...cells.map((cell, i) => `${names[i]}=${cell}`)];
      const whole = [...cells, ...pairs].join("\n");
      row.hidden = !words.every((word) => whole.includes(word)
        && (!word.includes("=") || pairs.some((pair) => pair === word || pair.endsWith("." + word))));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = words.length ? `${shown} of ${rows.length} ${status.dataset.noun}` : "";
  }

  function sortBy(table, heading) {
    const headings = Array.from(heading.parentElement.cells), body = table.tBodies[0];
    const way = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1, index = heading.cellIndex;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
    const rows = Array.from(body.rows, (row) => ({ row, key: cellText(row.cells[index]) }));
    const numbers = rows.every(({ key }) => Number.isFinite(Number(key)));
    rows.sort(({ key: a }, { key: b }) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // nothing comes last
      return way * (numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
    });
    body.append(...rows.map(({ row }) => row));
  }

  // Shadows on the sides to which a table goes on.
  function shade(scroll) {
    const { scrollLeft, scrollTop, clientWidth, clientHeight, scrollWidth, scrollHeight } = scroll;
    const sides = {
      left: scrollLeft > 1, right: scrollLeft + clientWidth < scrollWidth - 1,
      above: scrollTop > 1, below: scrollTop + clientHeight < scrollHeight - 1,
    };
    for (const [side, more] of Object.entries(sides)) scroll.parentElement.classList.toggle(`more-${side}`, more);
  }

  const sized = new ResizeObserver((entries) => entries.forEach(({ target }) => shade(target.closest(".scroll"))));
  for (const scroll of document.querySelectorAll(".scroll")) {
    scroll.addEventListener("scroll", () => shade(scroll), { passive: true });
    sized.observe(scroll);
    sized.observe(scroll.firstElementChild);
  }

  for (const data of document.querySelectorAll(".data")) {
    const table = data.querySelector("table"), box = data.querySelector(".filter input");
    box.addEventListener("input", () => filter(table, box.value, data.querySelector(".shown")));
    for (const heading of table.tHead.rows[0].cells) heading.addEventListener("click", () => sortBy(table, heading));
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
    const body = document.querySelector("tbody.points");

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
      const row = event.target.closest("tbody.points tr");
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
    choose(body.querySelector("[aria-pressed='true']")?.dataset.point ?? "");
  }
})();
