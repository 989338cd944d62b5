"use strict";
// Axes: where numbers lie and which of them are written; a chart fitted to the width that it is drawn in.
const axes = (function () {
  // Numbers to places: evenly or by logarithms, pixels from `from` to `to`.
  function scale(range, kind, from, to) {
    const { start, end } = range.attributes, log = kind.name === "LogScale";
    const on = log ? Math.log10 : (value) => value;
    const place = (value) => from + (to - from) * (on(value) - on(start)) / (on(end) - on(start));
    return { low: Math.min(start, end), high: Math.max(start, end), log, place };
  }

  // Round numbers between two ends: 1, 2 or 5 times a power of ten apart, or, by logarithms, as many within each power
  // of ten as give three numbers at least.
  function rounds(low, high, log) {
    if (log) {
      const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
      const every = Math.max(1, Math.floor((last - first) / 7));
      const powers = Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => 10 ** (first + i * every));
      for (const [parts, enough] of [[[1], 4], [[1, 2, 5], 3], [[1, 1.5, 2, 3, 5, 7], 3]]) {
        const inside = powers.flatMap((power) => parts.map((part) => part * power)).filter((one) => one >= low && one <= high);
        if (inside.length >= enough) return inside;
      }
    }
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((part) => part * power).find((one) => one >= rough * 0.999);
    return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => (Math.ceil(low / step) + i) * step);
  }

  function written(value) {
    const size = Math.abs(value), plain = Number(value.toPrecision(6));
    return size >= 1e4 && size < 1e9 ? plain.toLocaleString("en") : String(plain);
  }

  // Whether all that a chart draws lies at whole numbers along it: it has no ticks between them.
  function whole(renderers) {
    const columns = renderers.flatMap((one) => Object.fromEntries(one.attributes.data_source.attributes?.data.entries ?? []).x ?? []);
    return columns.length > 0 && columns.every(Number.isInteger);
  }

  function ticks(axis, along, isWhole = false) {
    const fixed = axis.attributes.ticker?.attributes?.ticks, names = new Map(axis.attributes.major_label_overrides?.entries);
    const places = (fixed ?? rounds(along.low, along.high, along.log)).filter((one) => one >= along.low && one <= along.high && (!isWhole || Number.isInteger(one)));
    return places.map((place) => [place, names.get(place) ?? written(place)]);
  }


  const pen = document.createElement("canvas").getContext("2d");
  function wide(text, size = 12) {
    pen.font = `${size}px helvetica`;  // BokehJS's own
    return pen.measureText(text).width;
  }

  // Text in lines of at most so many pixels, cut if they do not hold it.
  function lines(text, room, most) {
    const found = [""];
    for (const word of text.split(" ")) {
      const longer = `${found.at(-1)} ${word}`.trim();
      if (wide(longer) <= room || !found.at(-1) || found.length === most) found[found.length - 1] = longer;
      else found.push(word);
    }
    const cut = (line) => (wide(`${line}…`) > room ? cut(line.slice(0, -1)) : `${line}…`);
    return found.map((line) => (wide(line) > room ? cut(line) : line)).join("\n");
  }

  // Every second name, or third, and so on: the most that leave room between each other.
  function apart(names, along) {
    for (let every = 1; every < names.length; every += 1) {
      const kept = names.filter((_, i) => i % every === 0);
      const room = (one, next) => Math.abs(along.place(next[0]) - along.place(one[0])) - (wide(one[1]) + wide(next[1])) / 2;
      if (kept.every((one, i) => i === 0 || room(kept[i - 1], one) >= 8)) return kept;
    }
    return names.slice(0, 1);
  }

  // How far apart BokehJS writes numbers, where so many are wanted.
  function interval(low, high, wanted) {
    const power = 10 ** Math.floor(Math.log10((high - low) / wanted));
    const off = (step) => Math.abs(wanted - (high - low) / step);
    return [0.5, 1, 2, 5, 10].map((part) => part * power).reduce((best, one) => (off(one) < off(best) ? one : best));
  }

  // The ticks that have room: chosen here by logarithms and where they have names, else by how many there may be.
  function ticker(axis, along, isWhole) {
    const names = ticks(axis, along, isWhole);
    if (along.log || axis.attributes.ticker?.name === "FixedTicker") return ["FixedTicker", { ticks: apart(names, along).map(([place]) => place), minor_ticks: [] }];
    const room = 6 + Math.max(...names.map(([, name]) => wide(name)), 0), length = Math.abs(along.place(along.high) - along.place(along.low));
    let wanted = 6;
    while (wanted > 1 && length * interval(along.low, along.high, wanted) / (along.high - along.low) < room) wanted -= 1;
    return ["BasicTicker", { desired_num_ticks: wanted, ...(isWhole ? { min_interval: 1 } : {}) }];
  }

  // Names beside points that would leave the chart are turned to its inside; of two that meet, the first is kept.
  function turned(names, x, y, right) {
    const taken = [];
    names.text.forEach((text, i) => {
      const at = x.place(names.x[i]), size = wide(text, 11), shift = names.x_offset[i];
      if (names.text_align[i] === "left" && at + shift + size > right) { names.text_align[i] = "right"; names.x_offset[i] = -shift; }
      if (names.text_align[i] === "center" && at + size / 2 > right) { names.text_align[i] = "right"; }
      const from = at + names.x_offset[i] - size * { left: 0, center: 0.5, right: 1 }[names.text_align[i]];
      const level = y.place(names.y[i]) - names.y_offset[i] + (names.text_baseline[i] === "top" ? 12 : 0);
      if (taken.some(([left, at]) => Math.abs(at - level) < 12 && from < left[1] && left[0] < from + size)) names.text[i] = "";
      else taken.push([[from, from + size], level]);
    });
  }

  // A chart with the ticks, names and labels that have room in so many pixels.
  function fitted(root, width) {
    const { height, x_range, y_range, x_scale, y_scale, renderers, left: [vertical], below: [horizontal, bar], center } = root.attributes;
    let number = 0;
    const made = ([name, attributes]) => ({ type: "object", name, id: `${root.id}-fit-${number += 1}`, attributes });
    const y = scale(y_range, y_scale, height - 60, 10), named = vertical.attributes.major_label_overrides;
    if (named) {  // rows
      const rows = ticks(vertical, y);
      const pitch = rows.length > 1 ? Math.abs(y.place(rows[1][0]) - y.place(rows[0][0])) : height;
      named.entries.forEach((entry) => { entry[1] = lines(entry[1], 0.5 * width, pitch > 29 ? 2 : 1); });
    } else if (y.log) {
      vertical.attributes.ticker = made(ticker(vertical, { ...y, place: (value) => 3 * y.place(value) }, false));
    }
    const margin = Math.max(...ticks(vertical, y).flatMap(([, name]) => name.split("\n").map((line) => wide(line))), 0);
    const frame = width - margin - (vertical.attributes.axis_label ? 40 : 22) - 12, x = scale(x_range, x_scale, 0, frame);
    horizontal.attributes.ticker = made(ticker(horizontal, x, whole(renderers)));
    const title = horizontal.attributes.axis_label;
    if (title) horizontal.attributes.axis_label = lines(title, frame, 3);
    if (bar) {
      const mapper = renderers.find((one) => one.attributes.glyph.name === "Image").attributes.glyph.attributes.color_mapper;
      const { low: start, high: end } = mapper.attributes, kind = { name: mapper.name === "LogColorMapper" ? "LogScale" : "" };
      bar.attributes.ticker = made(ticker(bar, scale({ attributes: { start, end } }, kind, 0, frame), false));
    }
    center.filter((one) => one.name === "LabelSet").forEach((one) => turned(Object.fromEntries(one.attributes.source.attributes.data.entries), x, y, frame));
    return root;
  }

  return { fitted, rounds, scale, ticks, whole, written };
})();
