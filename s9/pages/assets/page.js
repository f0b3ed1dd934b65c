// What all pages share: their data, charts that follow the page's colours and width, tables made from plain ones.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
// Okabe and Ito's colours, which most people can tell apart, in an order that reads on light and dark.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f8f00", "#7a68c9"];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const percent = (value, digits = 2) => (value === null || value === undefined ? "" : (100 * value).toFixed(digits));

// Text from data inside HTML that a chart or table shows.
function escaped(text) {
  const element = document.createElement("span");
  element.textContent = String(text);
  return element.innerHTML.replace(/"/g, "&quot;");
}

// Draws into the element with this id; `option` is a function, called again when the page turns light or dark.
// Returns the chart, or null where the page has no such element.
function chart(id, option, onclick) {
  const element = document.getElementById(id);
  if (!element) return null;
  const drawn = echarts.init(element, null, { renderer: "canvas" });
  const draw = () => drawn.setOption(inPageColours(option()), true);
  draw();
  dark.addEventListener("change", draw);
  new ResizeObserver(() => drawn.resize()).observe(element);
  if (onclick) drawn.on("click", onclick);
  return drawn;
}

function inPageColours(option) {
  const text = colour("text"), line = colour("line"), faint = colour("faint");
  const axis = (given) => given && [].concat(given).map((one) => ({
    ...one,
    axisLine: { lineStyle: { color: line }, ...one.axisLine },
    axisLabel: { color: faint, hideOverlap: true, ...one.axisLabel },
    nameTextStyle: { color: text, ...one.nameTextStyle },
    splitLine: { lineStyle: { color: line, opacity: 0.6 }, ...one.splitLine },
  }));
  const tooltip = { backgroundColor: colour("surface"), borderColor: line, textStyle: { color: text }, confine: true, ...option.tooltip };
  const drawn = { animation: false, color: COLOURS, backgroundColor: "transparent", textStyle: { color: text }, ...option, tooltip };
  for (const name of ["xAxis", "yAxis", "parallelAxis"]) if (option[name]) drawn[name] = axis(option[name]);
  if (option.legend) drawn.legend = { textStyle: { color: text }, inactiveColor: faint, type: "scroll", pageIconColor: text, pageTextStyle: { color: text }, ...option.legend };
  if (option.visualMap) drawn.visualMap = [].concat(option.visualMap).map((one) => ({ textStyle: { color: text }, ...one }));
  return drawn;
}

// Makes the plain table with this id sortable and filterable; `columns` are Tabulator's, `rows` replace the plain rows.
// Without JavaScript the plain table stays as it is.
function table(id, columns, rows, options = {}) {
  const plain = document.getElementById(id);
  if (!plain) return null;
  const place = document.createElement("div");
  place.id = id;
  place.setAttribute("aria-label", plain.getAttribute("aria-label") || "table");
  plain.replaceWith(place);
  const made = new Tabulator(place, {
    data: rows, columns, layout: "fitDataFill", maxHeight: "32rem", headerSortClickElement: "header",
    columnDefaults: { headerFilter: "input", headerTooltip: true, resizable: "header" }, ...options,
  });
  made.on("tableBuilt", () => {  // Tabulator's heads answer to the mouse alone
    place.querySelectorAll(".tabulator-col.tabulator-sortable").forEach((head) => {
      head.tabIndex = 0;
      head.addEventListener("keydown", (event) => {
        if (event.target === head && (event.key === "Enter" || event.key === " ")) {
          event.preventDefault();
          head.click();
        }
      });
    });
  });
  return made;
}
