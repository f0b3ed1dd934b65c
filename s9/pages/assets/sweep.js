// The page of a sweep: tables of cells and jobs, charts of them, curves of all runs.
"use strict";

const { keys, levels, charted, cells, jobs, curves, effects } = data;
// Blue, green, amber: readable as lines on light and dark, and as areas under a label of the other colour.
const RAMP = ["#3b62d8", "#1f9e89", "#e0a100"];
const MOST_COLOURS = COLOURS.length;

// Long names are cut in the middle: those of files and classes differ at their ends.
function shorter(text, most = 22) {
  if (text === "") return "(none)";
  const kept = Math.floor((most - 1) / 2);
  return text.length > most ? `${text.slice(0, kept)}…${text.slice(text.length - kept)}` : text;
}
const level = (cell, key) => levels[key][cell.values[key]];
const scored = cells.filter((cell) => cell.mean !== null);
const range = scored.length ? [Math.min(...scored.map((c) => c.mean)), Math.max(...scored.map((c) => c.mean))] : [0, 1];
const signed = (value) => `${value > 0 ? "+" : ""}${percent(value)}`;
const lines = (parts) => parts.filter((part) => part !== "").map(escaped).join("<br>");

// What a tooltip says of a cell.
function cellText(cell) {
  const mean = `val mean ${percent(cell.mean)} %${cell.low === null ? "" : ` (${percent(cell.low)} to ${percent(cell.high)})`}`;
  const spread = `${cell.sd === null ? "" : `sd ${percent(cell.sd)}, `}n ${cell.shown_n}`;
  return lines([...keys.map((key, at) => `${key} = ${level(cell, at)}`), mean, spread, cell.verdict, cell.lacks]);
}

function mixed(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), from = Math.min(Math.floor(at), RAMP.length - 2);
  const part = (hex, place) => parseInt(hex.slice(1 + 2 * place, 3 + 2 * place), 16);
  const one = (place) => Math.round(part(RAMP[from], place) + (at - from) * (part(RAMP[from + 1], place) - part(RAMP[from], place)));
  return `rgb(${one(0)},${one(1)},${one(2)})`;
}

// Tables

const letters = new Intl.Collator();

// Numbers in their order, before texts in theirs; empty ones last, whichever way the rest goes.
function byValue(a, b, rowA, rowB, column, direction) {
  const empty = (value) => value === "" || value === null || value === undefined;
  if (empty(a) || empty(b)) return (empty(a) - empty(b)) * (direction === "asc" ? 1 : -1);
  const x = Number(a), y = Number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return letters.compare(a, b);
}

const text = (title, field, more = {}) => ({ title: escaped(title), field, sorter: byValue, maxWidth: 260, ...more });
const number = (title, field, shown, more = {}) => text(title, field, {
  hozAlign: "right", headerHozAlign: "right", sorterParams: {}, headerFilterPlaceholder: "", ...more,
  formatter: (cell) => shown(cell.getValue()),
  headerFilterFunc: (wanted, value) => shown(value).includes(wanted.trim()),
});
const digits = (count) => (value) => (value === null || value === undefined ? "" : value.toFixed(count));
const inMinutes = (value) => digits(value >= 1 ? 1 : 2)(value);
const swept = keys.map((key, at) => text(key, `k${at}`));
const valuesOf = (cell) => Object.fromEntries(keys.map((_, at) => [`k${at}`, level(cell, at)]));

// On a narrow screen what came out stands before the keys, so that no scrolling is needed to see both.
const inFront = (values, outcome) => (window.innerWidth < 700 ? [...outcome.reverse(), ...values] : [...values, ...outcome]);

function cellsTable() {
  const rows = cells.map((cell) => ({
    ...valuesOf(cell), ...cell, behind: cell.lead && cell.lead[0],
    interval: cell.lead ? `${percent(cell.lead[1])} to ${percent(cell.lead[2])}` : "",
  }));
  const columns = [
    ...inFront(swept, [text("against the best", "verdict"), number("val mean %", "mean", percent)]),
    number("behind the best", "behind", percent),
    text("interval", "interval", { hozAlign: "right", sorter: (a, b, x, y) => (x.getData().behind ?? -1) - (y.getData().behind ?? -1) }),
    number("sd", "sd", percent), text("n", "shown_n", { hozAlign: "right" }), number("minutes", "minutes", inMinutes),
  ];
  if (cells.some((cell) => cell.lacks)) columns.push(text("not done", "lacks"));
  return table("cells-table", columns, rows, {
    rowFormatter: (row) => row.getElement().classList.toggle("marked", row.getData().like),
  });
}

function jobsTable() {
  const rows = jobs.map(([job, cell, seed, state, accuracy, loss, minutes, page]) => (
    { job, ...valuesOf(cells[cell]), seed, state, accuracy, loss, minutes, page }));
  const link = (cell) => {
    const { job, page } = cell.getRow().getData();
    return page ? `<a href="${escaped(page)}">${escaped(job)}</a>` : escaped(job);
  };
  const columns = [
    text("job", "job", { formatter: link }),
    ...inFront([...swept, text("seed", "seed", { hozAlign: "right" })], [text("state", "state"), number("val %", "accuracy", percent)]),
    number("val loss", "loss", digits(4)), number("minutes", "minutes", inMinutes),
  ];
  return table("jobs-table", columns, rows);
}

// Val by value

const valAxis = (more = {}) => ({
  type: "value", scale: true, axisLabel: { formatter: (value) => `${+(100 * value).toPrecision(6)}` }, ...more,
});
const categories = (key, more = {}) => ({ type: "category", data: levels[key], axisLabel: { formatter: (value) => shorter(value) }, ...more });

// A vertical or horizontal bar from low to high, with ends.
function bar(across) {
  return (params, api) => {
    const [low, high] = [api.value(1), api.value(2)];
    if (Number.isNaN(low) || Number.isNaN(high)) return null;
    const at = (value) => api.coord(across ? [value, api.value(0)] : [api.value(0), value]);
    const [from, to] = [at(low), at(high)], style = { stroke: api.visual("color"), lineWidth: 1.5, fill: null };
    const end = ([x, y]) => (across ? { x1: x, y1: y - 4, x2: x, y2: y + 4 } : { x1: x - 4, y1: y, x2: x + 4, y2: y });
    const line = { x1: from[0], y1: from[1], x2: to[0], y2: to[1] };
    return { type: "group", children: [line, end(from), end(to)].map((shape) => ({ type: "line", shape, style })) };
  };
}

function linesChart() {
  const [key] = charted, ordered = [...scored].sort((a, b) => a.values[key] - b.values[key]);
  const styled = (cell) => ({ color: cell.like ? colour("accent") : colour("background"), borderColor: colour("accent"), borderWidth: 2 });
  chart("lines-chart", () => ({
    tooltip: { formatter: (point) => cellText(ordered[point.dataIndex]) },
    grid: { left: 70, right: 20, top: 40, bottom: 60 },
    xAxis: categories(key, { name: shorter(keys[key], 40), nameLocation: "middle", nameGap: 34 }),
    yAxis: valAxis({ name: "val mean %" }),
    series: [
      { type: "custom", renderItem: bar(false), itemStyle: { color: colour("accent") }, encode: { x: 0, y: [1, 2] }, silent: true,
        data: ordered.map((cell) => [cell.values[key], cell.low, cell.high]) },
      { type: "line", symbol: "circle", symbolSize: 10, lineStyle: { color: colour("faint"), width: 1 }, z: 3,
        data: ordered.map((cell) => ({ value: [cell.values[key], cell.mean], itemStyle: styled(cell) })) },
    ],
  }));
}

function heatChart() {
  const [across, down] = [...charted].sort((a, b) => levels[b].length - levels[a].length), element = document.getElementById("heat-chart");
  const wide = levels[across].length, high = levels[down].length;
  const longest = (key) => 6.5 * Math.max(...levels[key].map((value) => shorter(value).length));
  element.style.minWidth = `${Math.min(2400, 60 + longest(down) + Math.max(46, longest(across)) * wide)}px`;
  element.style.height = `${Math.max(260, Math.min(1600, 150 + 36 * high))}px`;
  chart("heat-chart", () => ({
    tooltip: { formatter: (point) => cellText(scored[point.dataIndex]) },
    grid: { left: 10, right: 20, top: 30, bottom: 70, containLabel: true },
    xAxis: categories(across, { name: shorter(keys[across], 40), nameLocation: "middle", nameGap: 30, splitLine: { show: false } }),
    yAxis: categories(down, { name: shorter(keys[down], 40), nameLocation: "start", nameTextStyle: { align: "left" }, inverse: true, splitLine: { show: false } }),
    visualMap: {
      min: range[0], max: range[1], dimension: 2, inRange: { color: RAMP }, orient: "horizontal", left: "center", bottom: 0,
      seriesIndex: 0, itemHeight: 120, itemWidth: 12, precision: 6, text: [`${percent(range[1])} %`, percent(range[0])], calculable: false,
    },
    series: [
      {
        type: "heatmap", itemStyle: { borderWidth: 1, borderColor: colour("background") },
        data: scored.map((cell) => ({
          value: [cell.values[across], cell.values[down], cell.mean],
          label: { color: (cell.mean - range[0]) / (range[1] - range[0] || 1) > 0.3 ? "#000" : "#fff" },
        })),
        label: { show: wide * high <= 600, formatter: (point) => percent(point.value[2]) },
      },
      { type: "custom", renderItem: frame, silent: true, tooltip: { show: false }, encode: { x: 0, y: 1 },
        data: scored.filter((cell) => cell.like).map((cell) => [cell.values[across], cell.values[down]]) },
    ],
  }));
}

// Around a cell of the heat map, inside its edges.
function frame(params, api) {
  const [x, y] = api.coord([api.value(0), api.value(1)]), [width, height] = api.size([1, 1]);
  const shape = { x: x - width / 2 + 2.5, y: y - height / 2 + 2.5, width: width - 5, height: height - 5 };
  return { type: "rect", shape, style: { fill: null, stroke: colour("text"), lineWidth: 2.5 } };
}

function parallelChart() {
  const element = document.getElementById("parallel-chart"), last = charted.length;
  const ordered = [...scored].reverse();  // the best is drawn last, over all others
  const thick = ordered.filter((cell) => cell.like).length <= 60;
  element.style.height = `${Math.max(384, Math.min(1000, 90 + 16 * Math.max(...charted.map((key) => levels[key].length))))}px`;
  element.style.minWidth = `${90 * (charted.length + 1)}px`;
  const drawn = chart("parallel-chart", () => ({
    tooltip: { formatter: (line) => cellText(ordered[line.dataIndex]) },
    parallel: {
      left: 40, right: 44, top: 50, bottom: 24,
      parallelAxisDefault: { nameTextStyle: { fontSize: 11, lineHeight: 14 }, areaSelectStyle: { width: 24, color: colour("accent"), opacity: 0.25 } },
    },
    parallelAxis: [
      ...charted.map((key, at) => categories(key, {
        dim: at, name: broken(keys[key]), axisLabel: { formatter: (value) => shorter(value, 12), interval: levels[key].length > 56 ? "auto" : 0, backgroundColor: colour("background"), padding: [1, 3] },
      })),
      valAxis({ dim: last, name: "val mean %" }),
    ],
    visualMap: { show: false, min: range[0], max: range[1], dimension: last, inRange: { color: RAMP } },
    series: [{
      type: "parallel", inactiveOpacity: 0.04, activeOpacity: 0.9,
      lineStyle: { width: scored.length > 1000 ? 1 : 1.5, opacity: Math.max(0.1, Math.min(0.8, 80 / scored.length)) },
      emphasis: { lineStyle: { width: 5, opacity: 1 } },
      data: ordered.map((cell) => ({
        value: [...charted.map((key) => cell.values[key]), cell.mean], lineStyle: cell.like && thick ? { width: 3.5, opacity: 0.9 } : {},
      })),
    }],
  }));
  drawn.on("axisareaselected", () => {
    const chosen = drawn.getModel().getSeries()[0].getRawIndicesByActiveState("active").map((at) => ordered[at]);
    const kept = document.getElementById("brushed");
    const best = chosen.reduce((sum, cell) => Math.max(sum, cell.mean), 0), worst = chosen.reduce((sum, cell) => Math.min(sum, cell.mean), 1);
    kept.textContent = !chosen.length || chosen.length === scored.length ? ""
      : `${chosen.length} of ${scored.length} cells: val mean ${percent(worst)} to ${percent(best)} %`;
  });
}

// A key in two lines.
function broken(key) {
  const at = key.lastIndexOf(".");
  return at < 0 ? shorter(key, 18) : `${shorter(key.slice(0, at + 1), 18)}\n${shorter(key.slice(at + 1), 18)}`;
}

// Main effects

function effectChart(effect, at) {
  const element = document.getElementById(`effect-${at}`), rows = effect.levels;
  if (!element) return;
  element.style.height = `${Math.max(120, 66 + 24 * rows.length)}px`;
  const named = rows.map((row) => `${shorter(row.value, 14)}${row.mean === null ? "" : `  (${percent(row.mean)} %)`}`);
  const shown = rows.map((row, place) => [place, ...(row.behind ?? [null, null, null])]);
  chart(`effect-${at}`, () => ({
    tooltip: {
      formatter: (point) => {
        const row = rows[point.value[1]];
        const difference = row.behind ? `${signed(row.behind[0])} points (${signed(row.behind[1])} to ${signed(row.behind[2])})` : "the highest mean";
        return lines([`${effect.key} = ${row.value}`, row.mean === null ? "" : `adjusted mean ${percent(row.mean)} %`, difference, `n ${row.n}`]);
      },
    },
    grid: { left: 10, right: 20, top: 10, bottom: 24, containLabel: true },
    xAxis: valAxis({ scale: false, name: "minus the best, points of val", nameLocation: "middle", nameGap: 26 }),
    yAxis: { type: "category", data: named, inverse: true, axisLabel: { interval: rows.length > 30 ? "auto" : 0 } },
    series: [
      { type: "custom", renderItem: bar(true), itemStyle: { color: colour("accent") }, encode: { x: [1, 2], y: 0 }, silent: true,
        data: shown.filter((row) => row[1] !== null).map(([place, , low, high]) => [place, low, high]) },
      { type: "scatter", symbolSize: 10, itemStyle: { color: colour("accent") },
        data: rows.map((row, place) => [row.behind ? row.behind[0] : 0, place]).filter((_, place) => rows[place].mean !== null) },
    ],
  }));
}

// Curves of all runs

function curvesChart() {
  const metric = document.getElementById("metric"), grouping = document.getElementById("grouping");
  const choice = (of, title, value) => of.add(new Option(title, value));
  curves.metrics.forEach((name, at) => choice(metric, name, at));
  charted.forEach((key) => choice(grouping, keys[key], key));
  choice(grouping, "mean of the cell", "mean");
  choice(grouping, "state", "state");
  const isShare = () => (curves.metrics[metric.value] || "").includes("accuracy");
  const drawn = chart("curves-chart", () => curvesOption(Number(metric.value), grouping.value, isShare()));
  for (const select of [metric, grouping]) {
    select.addEventListener("change", () => drawn.setOption(inPageColours(curvesOption(Number(metric.value), grouping.value, isShare())), true));
  }
}

// The groups in their order: [name, colour, places in jobs].
function groupsOf(grouping) {
  const of = (names, place, colours) => names.map((name, at) => [name, colours(at), jobs.flatMap((job, run) => (place(job) === at ? [run] : []))]);
  const palette = (count) => (at) => (count <= MOST_COLOURS ? COLOURS[at] : mixed(at / (count - 1)));
  if (grouping === "state") {
    const states = [...new Set(jobs.map((job) => job[3]))];
    return of(states, (job) => states.indexOf(job[3]), palette(states.length));
  }
  if (grouping === "mean") {
    const thirds = 6, width = (range[1] - range[0]) / thirds || 1;
    const names = Array.from({ length: thirds }, (_, at) => `${percent(range[0] + at * width)} to ${percent(range[0] + (at + 1) * width)} %`);
    const place = (job) => (cells[job[1]].mean === null ? thirds : Math.min(thirds - 1, Math.floor((cells[job[1]].mean - range[0]) / width)));
    return of([...names, "no score"], place, (at) => (at === thirds ? colour("faint") : mixed(at / (thirds - 1))));
  }
  const key = Number(grouping);
  const names = levels[key].map((value) => shorter(value, 30)), same = (name) => names.filter((other) => other === name).length > 1;
  return of(names.map((name, at) => (same(name) ? `${at + 1}: ${name}` : name)), (job) => cells[job[1]].values[key], palette(levels[key].length));
}

function curvesOption(metric, grouping, isShare) {
  const runs = curves.runs;
  const coordinates = (run) => curves.epochs[runs[run][0]].map((epoch, at) => [epoch, runs[run][1][metric][at]]).filter((point) => point[1] !== null);
  const groups = groupsOf(grouping).map(([name, shade, places]) => (
    [name, shade, places.filter((run) => runs[run]).map((run) => [run, coordinates(run)]).filter(([, points]) => points.length)]
  )).filter(([, , members]) => members.length);
  const all = groups.flatMap(([, , members]) => members.flatMap(([, points]) => points));
  const most = (values, start, better) => values.reduce((so, value) => better(so, value), start);
  const low = most(all.map((point) => point[1]), Infinity, Math.min), high = most(all.map((point) => point[1]), -Infinity, Math.max);
  const room = (high - low || Math.abs(high) || 1) * 0.04, shown = isShare ? percent : (value) => String(+value.toPrecision(4));
  const first = most(all.map((p) => p[0]), Infinity, Math.min), last = most(all.map((p) => p[0]), -Infinity, Math.max);
  const edge = first === last ? 0.5 : 0;  // runs of one epoch are short dashes
  const count = most(groups.map(([, , members]) => members.length), 0, (a, b) => a + b);
  return {
    tooltip: { formatter: (point) => runText(groups[point.seriesIndex][2][point.dataIndex], metric, shown) },
    legend: { top: 4, left: "center", width: "92%", data: groups.map(([name, shade]) => ({ name, itemStyle: { color: shade }, icon: "roundRect" })) },
    grid: { left: 10, right: 24, top: 60, bottom: 36, containLabel: true },
    xAxis: { type: "value", name: "epoch", nameLocation: "middle", nameGap: 24, minInterval: 1, min: first - edge, max: last + edge },
    yAxis: { type: "value", name: isShare ? `${curves.metrics[metric]} %` : curves.metrics[metric] || "", nameTextStyle: { align: "left" }, min: all.length ? low - room : 0, max: all.length ? high + room : 1,
      axisLabel: { formatter: (value) => (isShare ? `${+(100 * value).toFixed(1)}` : `${+value.toPrecision(3)}`), showMinLabel: false, showMaxLabel: false } },
    series: groups.map(([name, shade, members]) => ({
      name, type: "lines", coordinateSystem: "cartesian2d", polyline: true, itemStyle: { color: shade },
      lineStyle: { color: shade, width: 1.2, opacity: Math.max(0.25, Math.min(0.9, 60 / count)) },
      emphasis: { lineStyle: { width: 4, opacity: 1 } }, progressive: 0,
      data: members.map(([run, points]) => (points.length > 1 ? { coords: points, run } : { coords: [-0.1, 0.1].map((step) => [points[0][0] + step, points[0][1]]), run })),
    })),
  };
}

function runText([run, points], metric, shown) {
  const [job, cell, seed, state] = jobs[run], [epoch, value] = points[points.length - 1];
  const named = charted.map((key) => `${keys[key]} = ${level(cells[cell], key)}`);
  return lines([`run ${job}`, ...named, seed === "" ? "" : `seed = ${seed}`, state === "done" ? "" : state, `${curves.metrics[metric]} ${shown(value)} in epoch ${epoch}`]);
}

// Cost

function costChart() {
  const shown = cells.filter((cell) => cell.minutes !== null), element = document.getElementById("cost-chart");
  const most = 30, named = shown.map((cell) => shorter((charted.length ? charted : keys.map((_, at) => at)).map((key) => shorter(level(cell, key), 14)).join(", "), 34));
  element.style.height = `${80 + 22 * Math.max(3, Math.min(most, shown.length))}px`;
  const zoom = shown.length > most ? [{ type: "slider", yAxisIndex: 0, right: 4, width: 18, startValue: 0, endValue: most - 1, brushSelect: false, showDetail: false }] : [];
  chart("cost-chart", () => ({
    tooltip: { formatter: (item) => lines([...keys.map((key, at) => `${key} = ${level(shown[item.dataIndex], at)}`), `${inMinutes(shown[item.dataIndex].minutes)} minutes, n ${shown[item.dataIndex].shown_n}`]) },
    grid: { left: 10, right: zoom.length ? 50 : 40, top: 10, bottom: 24, containLabel: true },
    xAxis: { type: "value", name: "minutes of all jobs of the cell", nameLocation: "middle", nameGap: 26 },
    yAxis: { type: "category", data: named, inverse: true, axisLabel: { interval: 0, fontSize: 11 } },
    dataZoom: zoom,
    series: [{ type: "bar", data: shown.map((cell) => cell.minutes), itemStyle: { color: colour("accent") }, barMaxWidth: 16,
      label: { show: true, position: "right", color: colour("text"), formatter: (item) => inMinutes(item.value) } }],
  }));
}

// A chart a frame, so that the page answers while they are drawn.
function inTurn([first, ...rest]) {
  if (!first) return document.body.classList.add("drawn");
  return requestAnimationFrame(() => { first(); setTimeout(() => inTurn(rest), 0); });
}

cellsTable();
jobsTable();
const byNumberOfKeys = { 1: linesChart, 2: heatChart };
inTurn([
  ...(scored.length && charted.length ? [byNumberOfKeys[charted.length] ?? parallelChart] : []),
  ...effects.map((effect, at) => () => effectChart(effect, at)), curvesChart, costChart,
]);
