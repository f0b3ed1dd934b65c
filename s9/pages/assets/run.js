// A run's page: its curves, confusion matrix, tables and reliability diagram.
"use strict";

const { curves, onTest } = data;

// One chart of values by epoch. series: [name, values, colour]; star: [name, value] of test, at the last epoch.
function byEpoch(id, series, format, star = null) {
  const epochs = curves.epoch, few = epochs.length <= 40;
  const first = Math.floor(Math.min(1, ...curves.resumed)), last = epochs[epochs.length - 1];
  const room = first === last ? 1 : 0;  // around a single epoch, whose axis would begin at 0.5
  const marks = () => ({
    silent: true, symbol: "none", lineStyle: { type: "dashed", color: colour("warn") },
    label: { show: curves.resumed.length <= 3, formatter: "resumed", color: colour("warn"), fontSize: 11 },
    data: curves.resumed.map((epoch) => ({ xAxis: epoch })),
  });
  const known = series.filter(([, values]) => values.some((value) => value !== null && value !== undefined));
  if (!known.length) return;
  const drawn = known.map(([name, values, tint]) => ({
    name, type: "line", color: tint, data: values.map((value, place) => [epochs[place], value]), symbol: "circle", showSymbol: few, symbolSize: 5,
  }));
  if (star) drawn.push({
    name: star[0], type: "scatter", color: COLOURS[2], symbol: "diamond", symbolSize: 12, data: [[last, star[1]]],
  });
  chart(id, () => ({
    tooltip: {
      trigger: "axis",
      formatter: (points) => `epoch ${points[0].value[0]}<br>` + points.map((p) => `${p.marker}${p.seriesName} ${format(p.value[1])}`).join("<br>"),
    },
    legend: drawn.length > 1 ? { top: 4 } : undefined,
    grid: { left: 56, right: 20, top: drawn.length > 1 ? 44 : 24, bottom: 44 },
    xAxis: {
      type: "value", name: "epoch", nameLocation: "middle", nameGap: 26, minInterval: 1, min: first - room, max: last + room,
      axisLabel: { formatter: (epoch) => (epoch < first || epoch > last ? "" : epoch) },
    },
    yAxis: { type: "value", scale: true, axisLabel: { formatter: (value) => format(value, true) } },
    series: drawn.map((one, number) => (number ? one : { ...one, markLine: marks() })),
  }));
}

const four = (value) => (value === null ? "" : String(+value.toPrecision(4)));
const inPercent = (value, axis = false) => (axis ? String(+(100 * value).toFixed(2)) : `${percent(value)} %`);
if (curves.epoch.length) {
  const { test } = curves;
  byEpoch("chart-loss", [["train", curves["train/loss"], COLOURS[0]], ["val", curves["val/loss"], COLOURS[5]]], four, test && ["test", test.loss]);
  byEpoch("chart-accuracy", [["train", curves["train/accuracy"], COLOURS[0]], ["val", curves["val/accuracy"], COLOURS[5]]], inPercent, test && ["test", test.accuracy]);
  byEpoch("chart-lr", [["learning rate", curves.lr, COLOURS[0]]], four);
}

// Rows of the table of mistakes, or null; shows the images of one true and one predicted class.
let mistakes = null;

function choose(truth, predicted) {
  const said = document.getElementById("chosen");
  if (!mistakes || !said) return;
  said.hidden = truth === null;
  said.replaceChildren();
  if (truth === null) return mistakes.clearFilter();
  mistakes.setFilter([{ field: "true", type: "=", value: truth }, { field: "predicted", type: "=", value: predicted }]);
  const all = document.createElement("button");
  all.textContent = "show all";
  all.addEventListener("click", () => choose(null));
  said.append(`${truth}, predicted as ${predicted} `, all);
  document.getElementById("mistake-table").scrollIntoView({ block: "center" });
}

// Pixels of the widest text in the font of a chart's axis.
function textWidth(texts, size) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `${size}px sans-serif`;
  return Math.max(...texts.map((text) => pen.measureText(text).width));
}

function confusion() {
  const { classes, totals, cells } = onTest, count = classes.length, named = count <= 40, written = count <= 20;
  const narrow = () => document.getElementById("chart-confusion").clientWidth < 600;
  const size = () => (narrow() || count > 20 ? 9 : 12), widest = () => (narrow() || count > 40 ? 72 : 130);
  const share = ([truth, , images]) => images / totals[truth];
  const points = (right) => cells.filter(([truth, predicted]) => (truth === predicted) === right)
    .map((cell) => [cell[1], cell[0], cell[2], Math.sqrt(share(cell))]);  // the root: a few percent are seen too
  const series = (right) => ({
    type: "heatmap", data: points(right), progressive: 0,
    label: {
      show: written, fontSize: narrow() ? 8 : 11, formatter: (p) => p.value[2].toLocaleString("en"),
      color: colour("text"),
    },
    emphasis: { itemStyle: { borderColor: colour("text"), borderWidth: 1 } },
  });
  const scale = (seriesIndex, tint) => ({
    show: false, type: "continuous", min: 0, max: 1, dimension: 3, seriesIndex, inRange: { color: [colour("background"), tint] },
  });
  const axis = (name, inverse) => ({
    type: "category", data: classes, name, nameLocation: "middle", inverse, splitArea: { show: false },
    axisLabel: {
      interval: named ? 0 : "auto", hideOverlap: !named, rotate: inverse ? 0 : 90, width: widest(), overflow: "truncate", fontSize: size(),
    },
    axisTick: { show: false }, splitLine: { show: count <= 40, lineStyle: { color: colour("line"), opacity: 0.5 } },
  });
  const zoom = count > 40 ? [{ type: "slider", xAxisIndex: 0, bottom: 6, height: 14, showDetail: false }, { type: "slider", yAxisIndex: 0, right: 6, width: 14, showDetail: false }] : undefined;
  chart("chart-confusion", () => {
    const room = Math.min(widest(), textWidth(classes, size())) + 14;
    return {
      tooltip: {
        formatter: ({ value: [predicted, truth, images] }) => `${escaped(classes[truth])}, predicted as ${escaped(classes[predicted])}<br>`
          + `<b>${images.toLocaleString("en")}</b> of ${totals[truth].toLocaleString("en")} images (${percent(images / totals[truth])} %)`,
      },
      grid: { left: room + 16, right: zoom ? 32 : 8, top: 8, bottom: room + 16 + (zoom ? 20 : 0) },
      xAxis: { ...axis("predicted class", false), nameGap: room },
      yAxis: { ...axis("true class", true), nameGap: room },
      dataZoom: zoom,
      visualMap: [scale(0, dark.matches ? "#2f7fc4" : "#4a9be0"), scale(1, dark.matches ? "#d8701f" : "#ee7d26")],
      series: [series(true), series(false)],
    };
  }, ({ value: [predicted, truth] }) => { if (predicted !== truth) choose(classes[truth], classes[predicted]); });
}

function reliability() {
  const { bins } = onTest;
  const seen = (value) => bins.map((bin) => (bin[2] ? value(bin) : null));
  chart("chart-calibration", () => ({
    tooltip: {
      trigger: "axis", axisPointer: { type: "shadow" },
      formatter: ([{ dataIndex }]) => {
        const [low, high, images, sure, right] = bins[dataIndex];
        const rest = images ? `<br>mean probability ${percent(sure)} %<br>right ${percent(right)} %` : "";
        return `probability ${percent(low, 1)} to ${percent(high, 1)} %<br>${images.toLocaleString("en")} images${rest}`;
      },
    },
    legend: { top: 4, data: ["right", "mean probability", "images"] },
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    grid: [{ left: 60, right: 16, top: 40, bottom: "42%" }, { left: 60, right: 16, top: "66%", bottom: 48 }],
    xAxis: [0, 1].map((gridIndex) => ({
      type: "category", gridIndex, data: bins.map((bin) => percent(bin[1], 0)), axisLabel: { show: gridIndex === 1 }, axisTick: { show: gridIndex === 1 },
      name: gridIndex ? "probability of the predicted class, up to (%)" : "", nameLocation: "middle", nameGap: 28,
    })),
    yAxis: [
      { type: "value", gridIndex: 0, min: 0, max: 100, name: "%" },
      { type: "value", gridIndex: 1, splitNumber: 2, name: "images" },
    ],
    series: [
      { name: "right", type: "bar", color: COLOURS[0], barCategoryGap: "8%", data: seen((bin) => 100 * bin[4]) },
      { name: "mean probability", type: "scatter", color: COLOURS[1], symbol: "diamond", symbolSize: 11, itemStyle: { opacity: 1 }, data: seen((bin) => 100 * bin[3]) },
      { name: "images", type: "bar", color: COLOURS[4], barCategoryGap: "8%", xAxisIndex: 1, yAxisIndex: 1, data: bins.map((bin) => bin[2]) },
    ],
  }));
}

const number = { hozAlign: "right", sorter: "number", headerFilter: "input", headerFilterPlaceholder: "≥", headerFilterFunc: ">=" };
const digits = (places) => ({ ...number, formatter: (cell) => cell.getValue()?.toFixed(places) ?? "" });
const count = { ...number, formatter: (cell) => (cell.getValue() ?? "").toLocaleString("en") };

if (onTest) {
  const { classes } = onTest;
  if (onTest.cells) confusion();
  reliability();
  table("class-table", [
    { title: "class", field: "name", maxWidth: 320 },
    { title: "train images", field: "train", ...count },
    { title: "images", field: "images", ...count }, { title: "right", field: "right", ...count },
    { title: "recall %", field: "recall", ...digits(2) }, { title: "precision %", field: "precision", ...digits(2) },
    { title: "most confused with", field: "other", maxWidth: 320 }, { title: "confused images", field: "confused", ...count },
  ], onTest.perClass.map(([name, train, images, right, recall, precision, other, confused]) => ({ name, train, images, right, recall, precision, other, confused })));
  mistakes = table("mistake-table", [
    { title: "file", field: "file", maxWidth: 480 }, { title: "true class", field: "true", maxWidth: 240 },
    { title: "predicted class", field: "predicted", maxWidth: 240 },
    { title: "probability of predicted %", field: "sure", ...digits(1) }, { title: "of true %", field: "chance", ...digits(1) },
  ], onTest.mistakes.map(([file, truth, predicted, sure, chance]) => ({ file, true: classes[truth], predicted: classes[predicted], sure, chance })));
}
