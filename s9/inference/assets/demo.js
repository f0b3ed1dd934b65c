"use strict";

const at = (id) => document.getElementById(id);
const show = (id, shown) => { at(id).hidden = !shown; };
let latest = 0; // number of the picture that was given last; answers to earlier ones are dropped

function say(text) {
  at("message").textContent = text;
  show("message", Boolean(text));
}

async function answerTo(file) {
  const most = Number(document.body.dataset.megabytes);
  if (file.size > most * 1e6) throw new Error(`the file is too large: at most ${most} MB`);
  let body;
  try {
    body = await file.arrayBuffer();
  } catch {
    throw new Error("this is no file that the browser can read");
  }
  let response;
  try {
    response = await fetch("look", { method: "POST", body });
  } catch {
    throw new Error("no answer: has s9.demo ended?");
  }
  const found = await response.json().catch(() => ({ error: "s9.demo failed; its screen says why" }));
  if (!response.ok) throw new Error(found.error);
  return found;
}

async function look(files) {
  const number = ++latest;
  say(files.length ? "" : "That was no file. Save the picture first, then drop it here.");
  if (!files.length) return;
  const [file] = files;
  at("result").classList.add("stale");
  show("busy", true);
  try {
    const found = await answerTo(file);
    if (number !== latest) return;
    draw(found);
    show("result", true);
    if (files.length > 1) say(`One picture at a time: this is ${file.name}, the first of ${files.length}.`);
  } catch (error) {
    if (number !== latest) return;
    show("result", false);
    say(`${file.name}: ${error.message}`);
  }
  show("busy", false);
  at("result").classList.remove("stale");
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}

function draw(found) {
  const [best] = found.top;
  at("answer").textContent = `${best.name}, ${percent(best.probability)}`;
  at("shown").src = found.shown;
  at("seen").src = found.seen;
  at("top").replaceChildren(...found.top.map(row));
  choose(best, at("top").querySelector("button"));
}

function row(one) {
  const button = document.createElement("button");
  const name = document.createElement("span");
  const value = document.createElement("span");
  const bar = document.createElement("i");
  name.textContent = one.name;
  value.textContent = percent(one.probability);
  bar.style.width = `${100 * one.probability}%`;
  button.type = "button";
  button.append(name, value, bar);
  button.addEventListener("click", () => choose(one, button));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function choose(one, chosen) {
  for (const button of at("top").querySelectorAll("button")) button.ariaPressed = String(button === chosen);
  const heat = at("heat");
  heat.alt = `heat where the network sees ${one.name}`;
  if (one.heat) heat.src = one.heat; else heat.removeAttribute("src");
  at("cam").textContent = one.heat ? `Grad-CAM: what speaks for ${one.name}, most where it is red. Each name has its own scale.`
    : `Grad-CAM: nothing in this picture speaks for ${one.name}.`;
  lay();
}

function lay() {
  show("heat", at("over").checked && at("heat").hasAttribute("src"));
}

at("over").addEventListener("change", lay);
at("file").addEventListener("change", (event) => {
  if (event.target.files.length) look([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // else the browser leaves the page to show the picture
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") look([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => look([...event.clipboardData.files]));
