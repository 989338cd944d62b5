// Stills: what is printed of each chart, as SVG from the same JSON that BokehJS draws. Drawing here needs no waiting, so
// it is done when printing begins, for charts too that never came into view, and always in the colours of a light page.
(function () {
  const { rounds, scale, ticks, whole, written } = axes;
  const WIDTH = 680, TOP = 8, RIGHT = 14, LETTER = 6.4, MOST_COLUMNS = 9;
  const OUTLINES = {  // of a marker of radius 1
    square: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
    triangle: [[0, -1], [1, 0.8], [-1, 0.8]],
    inverted_triangle: [[0, 1], [1, -0.8], [-1, -0.8]],
    hex: [[-1, 0], [-0.5, -0.87], [0.5, -0.87], [1, 0], [0.5, 0.87], [-0.5, 0.87]],
    diamond: [[0, -1.2], [0.8, 0], [0, 1.2], [-0.8, 0]],
    star: Array.from({ length: 10 }, (_, i) => [Math.sin(i * Math.PI / 5) * (i % 2 ? 0.42 : 1.1), -Math.cos(i * Math.PI / 5) * (i % 2 ? 0.42 : 1.1)]),
  };

  function add(parent, name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  const at = (value) => value.toFixed(1);
  const box = (left, top, right, bottom) => `M${at(left)} ${at(top)}H${at(right)}V${at(bottom)}H${at(left)}Z`;

  function marker(kind, x, y, radius) {
    if (!OUTLINES[kind]) return `M${at(x - radius)} ${at(y)}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
    return "M" + OUTLINES[kind].map(([dx, dy]) => `${at(x + dx * radius)} ${at(y + dy * radius)}`).join("L") + "Z";
  }

  function colourOf(mapper) {
    const { palette, low, high } = mapper.attributes, log = mapper.name === "LogColorMapper";
    return (value) => {
      if (typeof value !== "number" || (log && value < low)) return null;
      const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
      return palette[Math.max(0, Math.min(palette.length - 1, Math.floor(share * palette.length)))];
    };
  }

  function glyph(svg, renderer, x, y) {
    const made = renderer.attributes.glyph, style = made.attributes, of = (name) => style[name]?.value;
    const columns = Object.fromEntries(renderer.attributes.data_source.attributes?.data.entries ?? []);
    const fill = { fill: style.fill_color ?? "none", "fill-opacity": style.fill_alpha ?? 1 };
    const line = { fill: "none", stroke: style.line_color, "stroke-width": style.line_width ?? 1, "stroke-opacity": style.line_alpha ?? 1 };
    const each = (name, part) => columns[name].map((_, i) => part(i)).join("");
    if (style.line_alpha === 0 || style.fill_alpha === 0) return;
    if (made.name === "Line") {
      const d = "M" + columns.x.map((value, i) => `${at(x.place(value))} ${at(y.place(columns.y[i]))}`).join("L");
      add(svg, "path", { ...line, d, "stroke-dasharray": (style.line_dash ?? []).join(" "), "stroke-linejoin": "round" });
    } else if (made.name === "Segment") {
      add(svg, "path", { ...line, d: each("x0", (i) => `M${at(x.place(columns.x0[i]))} ${at(y.place(columns.y0[i]))}L${at(x.place(columns.x1[i]))} ${at(y.place(columns.y1[i]))}`) });
    } else if (made.name === "Scatter") {
      add(svg, "path", { ...fill, d: each("x", (i) => marker(columns.marker?.[i] ?? of("marker"), x.place(columns.x[i]), y.place(columns.y[i]), (columns.size?.[i] ?? of("size")) / 2)) });
    } else if (made.name === "VBar") {
      const half = (of("width") ?? 1) / 2;
      add(svg, "path", { ...fill, d: each("x", (i) => box(x.place(columns.x[i] - half), y.place(columns.top[i]), x.place(columns.x[i] + half), y.place(0))) });
    } else if (made.name === "Quad") {
      add(svg, "path", { ...fill, d: each("left", (i) => box(x.place(columns.left[i]), y.place(columns.top[i]), x.place(columns.right[i]), y.place(columns.bottom[i]))) });
    } else if (made.name === "Image") {
      const { array, shape } = columns.image[0], colour = colourOf(style.color_mapper), paths = new Map();
      array.forEach((value, i) => {
        const shade = colour(value), row = Math.floor(i / shape[1]), column = i % shape[1];
        if (shade) paths.set(shade, (paths.get(shade) ?? "") + box(x.place(column - 0.5), y.place(row - 0.5), x.place(column + 0.5), y.place(row + 0.5)));
      });
      for (const [shade, d] of paths) add(svg, "path", { fill: shade, d, "shape-rendering": "crispEdges" });
    }
  }

  function colourBar(svg, bar, mapper, left, right, top) {
    const { low, high, palette } = mapper.attributes, shades = 64;
    for (let i = 0; i < shades; i++) {
      const from = left + (right - left) * i / shades, shade = palette[Math.floor((i + 0.5) / shades * palette.length)];
      add(svg, "path", { fill: shade, d: box(from, top, from + (right - left) / shades, top + 9), "shape-rendering": "crispEdges" });
    }
    const along = scale({ attributes: { start: low, end: high } }, { name: mapper.name === "LogColorMapper" ? "LogScale" : "" }, left, right);
    for (const one of rounds(low, high, along.log)) add(svg, "text", { x: along.place(one), y: top + 21, "text-anchor": "middle" }, written(one));
    add(svg, "text", { x: left, y: top - 4 }, bar.attributes.title);
  }

  function still(root) {
    const { height: tall, x_range, y_range, x_scale, y_scale, renderers, left: [vertical], below: [horizontal, bar], center } = root.attributes;
    // Two maps fit on a sheet, or three charts of curves or bars; rows keep the room that they need.
    const height = bar ? Math.min(tall, 310) : vertical.attributes.major_label_overrides ? tall : Math.min(tall, 230);
    const yAxis = ticks(vertical, scale(y_range, y_scale, 0, 1));
    const left = 28 + LETTER * Math.max(...yAxis.map(([, name]) => name.length), 1), bottom = height - (bar ? 84 : 40);
    const x = scale(x_range, x_scale, left, WIDTH - RIGHT), y = scale(y_range, y_scale, bottom, TOP);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    const grids = center.filter((one) => one.name === "Grid"), thin = { "stroke-width": 0.7, fill: "none" };
    const xAxis = ticks(horizontal, x, whole(renderers));
    for (const grid of grids.filter((one) => one.attributes.grid_line_color)) {
      const d = grid.attributes.dimension === 1
        ? yAxis.map(([place]) => `M${at(left)} ${at(y.place(place))}H${WIDTH - RIGHT}`).join("")
        : xAxis.map(([place]) => `M${at(x.place(place))} ${TOP}V${at(bottom)}`).join("");
      add(svg, "path", { ...thin, stroke: grid.attributes.grid_line_color, d });
    }
    renderers.forEach((one) => glyph(svg, one, x, y));
    for (const { name, attributes: its } of center) {
      if (name === "Span") {
        const place = (its.dimension === "width" ? y : x).place(its.location);
        const d = its.dimension === "width" ? `M${at(left)} ${at(place)}H${WIDTH - RIGHT}` : `M${at(place)} ${TOP}V${at(bottom)}`;
        add(svg, "path", { fill: "none", stroke: its.line_color, "stroke-width": its.line_width ?? 1, "stroke-dasharray": (its.line_dash ?? []).join(" "), d });
      } else if (name === "LabelSet") {
        const columns = Object.fromEntries(its.source.attributes.data.entries);
        columns.text.forEach((text, i) => add(svg, "text", {
          x: x.place(columns.x[i]) + columns.x_offset[i], y: y.place(columns.y[i]) - columns.y_offset[i] + (columns.text_baseline[i] === "top" ? 9 : 0),
          "text-anchor": { left: "start", center: "middle", right: "end" }[columns.text_align[i]],
        }, text));
      }
    }
    add(svg, "path", { fill: "none", stroke: "#5a6672", "stroke-width": 1, d: `M${at(left)} ${TOP}V${at(bottom)}H${WIDTH - RIGHT}` });
    const room = xAxis.length < 2 ? Infinity : Math.abs(x.place(xAxis[1][0]) - x.place(xAxis[0][0]));
    const every = Math.max(1, Math.ceil(LETTER * (1 + Math.max(...xAxis.map(([, name]) => name.length), 0)) / room));
    xAxis.forEach(([place, name], i) => { if (i % every === 0) add(svg, "text", { x: x.place(place), y: bottom + 15, "text-anchor": "middle" }, name); });
    for (const [place, name] of yAxis) add(svg, "text", { x: left - 5, y: y.place(place) + 4, "text-anchor": "end" }, name);
    add(svg, "text", { x: (left + WIDTH - RIGHT) / 2, y: bottom + 32, "text-anchor": "middle" }, horizontal.attributes.axis_label ?? "");
    add(svg, "text", { transform: `translate(12 ${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, vertical.attributes.axis_label ?? "");
    const mapped = renderers.find((one) => one.attributes.glyph.name === "Image");
    if (bar && mapped) colourBar(svg, bar, mapped.attributes.glyph.attributes.color_mapper, left, WIDTH - RIGHT, bottom + 52);
    return svg;
  }

  function stills() {
    if (document.documentElement.classList.contains("stills")) return;
    for (const canvas of document.querySelectorAll(".canvas")) {
      const frame = document.createElement("div");
      frame.className = "still";
      frame.setAttribute("role", "img");
      frame.setAttribute("aria-label", canvas.getAttribute("aria-label"));
      const view = canvas.dataset.name;
      if (view) frame.append(Object.assign(document.createElement("p"), { textContent: view }));
      frame.append(still(JSON.parse(document.getElementById(canvas.dataset.chart).textContent)));
      canvas.after(frame);
    }
    // A table too wide for paper is folded: a block for each row, its cells with their headings.
    for (const table of document.querySelectorAll("main table:not(.heat)")) {
      const headings = Array.from(table.tHead?.rows[0]?.cells ?? []), names = headings.map((cell) => cell.textContent.trim());
      // Chromium repeats headings on every sheet, but not the buttons in them.
      headings.forEach((cell, i) => { cell.dataset.label = names[i]; });
      if (names.length <= MOST_COLUMNS) continue;
      table.classList.add("folded");
      for (const row of table.tBodies[0].rows) Array.from(row.cells, (cell, i) => { cell.dataset.label = names[i]; });
    }
    document.documentElement.classList.add("stills");
  }

  // Charts that are folded away on the screen are printed too.
  let unfolded = [];
  function prepare() {
    unfolded = Array.from(document.querySelectorAll("details:not([open])")).filter((one) => one.querySelector("figure"));
    unfolded.forEach((one) => { one.open = true; });
    stills();
  }

  window.addEventListener("beforeprint", prepare);
  window.addEventListener("afterprint", () => unfolded.forEach((one) => { one.open = false; }));
})();
