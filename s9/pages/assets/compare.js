// The page of a comparison: curves of all runs over each other, the pairs, and the images that not all get right.
"use strict";

const SOLID_LINES = ["solid", "dashed", "dotted"];  // where there are more runs than colours
const digits = (value, count) => (value === null || value === undefined ? "" : value.toFixed(count));
const smallest = (p) => (p < 1e-4 ? "below 0.0001" : String(+p.toPrecision(2)));
const runColour = (at) => COLOURS[at % COLOURS.length];

document.querySelectorAll(".swatch").forEach((mark) => { mark.style.background = runColour(+mark.dataset.run); });

// Curves

// `A: strided-basic, seed 0`, or A where there is no room; the table of runs says which is which.
function legendText(name) {
  const label = name.slice(0, name.indexOf(":"));
  return window.innerWidth < 600 || data.runs.length > 4 ? label : name.length > 40 ? `${name.slice(0, 39)}…` : name;
}

function curveOption(key) {
  const share = key.endsWith("accuracy");
  const shown = (value) => (share ? `${percent(value)} %` : String(value));
  return {
    legend: { top: 4, data: data.runs.map((run) => run.name), formatter: legendText },
    grid: { left: 58, right: 16, top: 42, bottom: 44 },
    tooltip: {
      trigger: "axis",
      formatter: (points) => [`epoch ${points[0].value[0]}`, ...points.map((point) => (
        `${point.marker}${escaped(point.seriesName)}: ${escaped(shown(point.value[1]))}`))].join("<br>"),
    },
    xAxis: {
      type: "value", name: "epoch", nameLocation: "middle", nameGap: 28, minInterval: 1, min: "dataMin", max: "dataMax",
      axisLabel: { formatter: (epoch) => (Number.isInteger(epoch) ? epoch : "") },  // one epoch's axis begins at 0.5
    },
    yAxis: { type: "value", scale: true, axisLabel: { formatter: (value) => (share ? `${+(100 * value).toFixed(2)} %` : `${+value.toPrecision(6)}`) } },
    series: data.curves[key].map((points, at) => ({
      name: data.runs[at].name, type: "line", data: points, showSymbol: points.length < 40, symbolSize: 5,
      itemStyle: { color: runColour(at) },
      lineStyle: { color: runColour(at), width: 2, type: SOLID_LINES[Math.floor(at / COLOURS.length) % SOLID_LINES.length] },
    })),
  };
}

Object.keys(data.curves).forEach((key, at) => chart(`curve-${at}`, () => curveOption(key)));

// Pairs

const columns = (title, field, more = {}) => ({ title: escaped(title), field, ...more });
const numbers = (title, field, shown, more = {}) => columns(title, field, {
  hozAlign: "right", headerHozAlign: "right", sorter: "number", formatter: (cell) => escaped(shown(cell.getValue())),
  headerFilterFunc: (wanted, value) => shown(value).includes(wanted.trim()), ...more,
});

if (data.pairs.length > 1) {
  const rows = data.pairs.map(([first, second, onlyFirst, onlySecond, lead, low, high, p, adjusted, differs]) => (
    { first, second, onlyFirst, onlySecond, lead, interval: `${percent(low)} to ${percent(high)}`, p, adjusted, differs }));
  table("pairs-table", [
    columns("first", "first"), columns("second", "second"),
    numbers("only first right", "onlyFirst", String), numbers("only second right", "onlySecond", String),
    numbers("lead of first, points", "lead", percent), columns("95 % interval", "interval", { hozAlign: "right", headerSort: false }),
    numbers("p", "p", smallest), numbers("p by Holm", "adjusted", smallest),
  ], rows, { rowFormatter: (row) => row.getElement().classList.toggle("marked", row.getData().differs) });
}

// Images

function imagesTable() {
  const rows = data.images.map(([index, name, truth, right, said]) => {
    const row = { index, name, truth, right };
    said.forEach(([predicted, prob], at) => { row[`run${at}`] = `${predicted} (${prob === null ? "?" : prob} %)`; row[`right${at}`] = predicted === truth; });
    return row;
  });
  const picture = (cell) => {
    const source = data.pictures[cell.getValue()];
    if (!source) return "";
    const image = document.createElement("img");
    image.src = source;
    image.alt = `the image ${cell.getRow().getData().name}`;
    return image;
  };
  const said = (at) => (cell) => {
    const text = document.createElement("span");
    text.className = cell.getRow().getData()[`right${at}`] ? "good" : "bad";
    text.textContent = `${text.className === "good" ? "✓" : "✗"} ${cell.getValue()}`;
    return text;
  };
  const made = table("images-table", [
    ...(Object.keys(data.pictures).length ? [columns("picture", "index", { formatter: picture, headerFilter: false, headerSort: false, width: 80 })] : []),
    columns("image", "name", { minWidth: 150, maxWidth: 420 }), columns("true class", "truth", { maxWidth: 220 }), columns("right", "right"),
    ...data.tested.map((label, at) => columns(label, `run${at}`, { formatter: said(at), maxWidth: 260 })),
  ], rows);
  const who = document.getElementById("who"), shown = document.getElementById("shown");
  const show = () => (who.value ? made.setFilter("right", "=", who.value) : made.clearFilter());
  made.on("dataFiltered", (_, left) => { shown.textContent = `${left.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`; });
  made.on("tableBuilt", () => { who.addEventListener("change", show); show(); });
}

if (document.getElementById("images-table")) imagesTable();
