"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const n = data.run.length;
// Thousands of rows would make scrolling slow; filters reach every run anyway.
const ROWS = 500;

/* Elements are made node by node, and text only set as text: nothing from a file can become markup. */
const make = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const drawn = (name, attributes, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const decoded = (column, i) => column.values[column.of[i]];
const known = (value) => value !== null && value !== undefined && value !== "";
const written = (value) => {
  if (!known(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e7) return value.toExponential(4).replace("e+", "e");
  if (Number.isInteger(value)) return value.toLocaleString("en-GB");
  return size !== 0 && size < 1e-3 ? String(Number(value.toExponential(4))) : String(Number(value.toPrecision(5)));
};
const optionText = (value) => (typeof value === "number" ? String(value) : String(value));

const option = (i, name) => {
  const method = decoded(data.method, i);
  if (!data.used[method].includes(name)) return name === "density" ? 1 : null;
  return name in data.changed[i] ? data.changed[i][name] : data.options[name][0];
};
const metric = (i, name) => (name in data.metrics ? data.metrics[name][i] : null);
const told = new Set(["dataset", "model", "method", "density", "seed"]);
const constant = new Set(data.constant);
const others = (i) => Object.entries(data.changed[i])
  .filter(([name]) => !told.has(name) && !constant.has(name) && data.used[decoded(data.method, i)].includes(name))
  .map(([name, value]) => `${name} ${optionText(value)}`).join(", ");

/* The list */
const COLUMNS = [
  {name: "method", value: (i) => data.methods[decoded(data.method, i)]},
  {name: "data set", value: (i) => option(i, "dataset"), hidden: constant.has("dataset")},
  {name: "network", value: (i) => option(i, "model"), hidden: constant.has("model")},
  {name: "density", value: (i) => option(i, "density"), number: true, text: (v) => String(v)},
  {name: "seed", value: (i) => option(i, "seed"), number: true, text: (v) => String(v)},
  {name: "other options", value: others, wrap: true},
  {name: "status", value: (i) => decoded(data.status, i)},
  {name: "accuracy (%)", value: (i) => metric(i, "accuracy"), number: true, text: (v) => (100 * v).toFixed(2)},
  {name: "NLL", value: (i) => metric(i, "nll"), number: true, text: (v) => v.toFixed(4)},
  {name: "ECE", value: (i) => metric(i, "ece"), number: true, text: (v) => v.toFixed(4)},
  {name: "marginal ECE", value: (i) => metric(i, "ece_marginal"), number: true, text: (v) => v.toFixed(4)},
  {name: "training (s)", value: (i) => metric(i, "training_seconds"), number: true, text: (v) => v.toFixed(1)},
].filter((column) => !column.hidden);
const cells = COLUMNS.map((column) => data.run.map((_, i) => column.value(i)));
const haystack = data.run.map((run, i) => `${run} ${others(i)} ${decoded(data.status, i)} ${data.cause[i]}`.toLowerCase());
const members = Object.fromEntries(Object.entries(data.experiments).map(([name, list]) => [name, new Set(list)]));
const filters = {
  "by-status": [data.status.values, (i) => decoded(data.status, i)],
  "by-method": [data.method.values, (i) => decoded(data.method, i)],
  "by-dataset": [[...new Set(data.run.map((_, i) => option(i, "dataset")))], (i) => option(i, "dataset")],
  "by-experiment": [Object.keys(data.experiments), null],
};
let order = {column: null, falling: false};
let everything = false;
let current = null;

const matching = () => {
  const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(filters).filter(([id]) => $(id).value !== "");
  const found = [];
  for (let i = 0; i < n; i++) {
    const fits = chosen.every(([id, [, value]]) =>
      value ? value(i) === $(id).value : members[$(id).value].has(i));
    if (fits && words.every((word) => haystack[i].includes(word))) found.push(i);
  }
  if (order.column !== null) {
    const values = cells[order.column];
    const sign = order.falling ? -1 : 1;
    found.sort((a, b) => {
      if (!known(values[a]) || !known(values[b])) return known(values[b]) - known(values[a]) || a - b;
      const less = typeof values[a] === "number" && typeof values[b] === "number"
        ? values[a] - values[b] : String(values[a]).localeCompare(String(values[b]), "en");
      return sign * less || a - b;
    });
  }
  return found;
};

const rowOf = (i) => {
  const row = make("tr", {"data-run": i});
  COLUMNS.forEach((column, c) => {
    const value = cells[c][i];
    const text = known(value) ? (column.text || written)(value) : column.number ? "–" : "";
    const cell = make("td", {class: column.number ? "number" : column.wrap ? "wrap" : ""});
    cell.append(c === 0 ? make("button", {type: "button", class: "open", "aria-label": `Show ${data.run[i]}`}, text) : text);
    row.append(cell);
  });
  if (i === current) row.setAttribute("aria-current", "true");
  return row;
};

const list = () => {
  const found = matching();
  const shown = everything ? found : found.slice(0, ROWS);
  $("list").querySelector("tbody").replaceChildren(...shown.map(rowOf));
  const cut = shown.length < found.length ? `, of which the first ${shown.length} are listed` : "";
  $("count").textContent = `${found.length} of ${n} runs${cut}`;
  $("more").hidden = shown.length === found.length;
  $("more").textContent = `List all ${found.length}`;
};

const head = () => {
  const row = make("tr");
  COLUMNS.forEach((column, c) => {
    const mark = order.column !== c ? "" : order.falling ? " ▼" : " ▲";
    const heading = make("th", {scope: "col", class: column.number ? "number" : ""});
    if (order.column === c) heading.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
    heading.append(make("button", {type: "button", "data-column": c}, column.name + mark));
    row.append(heading);
  });
  $("list").querySelector("thead").replaceChildren(row);
};

/* One run */
let parsed = null;
const curvesOf = (i) => {
  if (parsed === null) parsed = JSON.parse($("curves").textContent);
  return parsed[i];
};

const table = (caption, rows) => {
  const body = make("tbody", {}, ...rows.map(([name, value, hint]) => {
    const heading = make("th", {scope: "row"}, name);
    if (hint) heading.title = hint;
    return make("tr", {}, heading, make("td", {}, value));
  }));
  return make("div", {}, make("h4", {}, caption), make("div", {class: "box"}, make("table", {}, body)));
};

const optionRows = (i, changed) => data.used[decoded(data.method, i)]
  .filter((name) => (name in data.changed[i]) === changed && !decoded(data.idle, i).split(" ").includes(name))
  .map((name) => [name, optionText(option(i, name)), data.options[name][1]]);

const ticks = (low, high, most) => {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
};

const chart = (title, epochs, lines) => {
  const all = lines.flatMap((line) => line.values).filter(known);
  if (!all.length) return null;
  const [width, height, left, right, top, bottom] = [420, 230, 62, 12, 10, 34];
  let low = Math.min(...all), high = Math.max(...all);
  const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  [low, high] = [low - margin, high + margin];
  const [first, last] = [epochs[0], Math.max(epochs[epochs.length - 1], epochs[0] + 1)];
  const x = (e) => left + (e - first) / (last - first) * (width - left - right);
  const y = (v) => height - bottom - (v - low) / (high - low) * (height - top - bottom);
  const spoken = lines.map((line) => {
    const values = line.values.filter(known);
    return `${line.name} from ${written(values[0])} to ${written(values[values.length - 1])}`;
  }).join(", ");
  const svg = drawn("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} by epoch: ${spoken}`});
  // One way of writing for the whole axis.
  const exponent = Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high))));
  const powers = exponent >= 5 || exponent < -3;
  for (const v of ticks(low, high, 5)) {
    svg.append(drawn("line", {x1: left, x2: width - right, y1: y(v), y2: y(v), stroke: "#ddd"}));
    const label = powers && v !== 0 ? String(Number((v / 10 ** exponent).toPrecision(4))) + `e${exponent}` : String(Number(v.toPrecision(4)));
    svg.append(drawn("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, label));
  }
  for (const e of ticks(first, last, 6).filter(Number.isInteger)) {
    svg.append(drawn("line", {x1: x(e), x2: x(e), y1: height - bottom, y2: height - bottom + 4, stroke: "#333"}));
    svg.append(drawn("text", {x: x(e), y: height - bottom + 17, "text-anchor": "middle"}, String(e)));
  }
  svg.append(drawn("text", {x: width - right, y: height - 3, "text-anchor": "end"}, "epoch"));
  svg.append(drawn("path", {d: `M${left} ${top}V${height - bottom}H${width - right}`, fill: "none", stroke: "#333"}));
  for (const line of lines) {
    let path = "", pen = "M";
    line.values.forEach((v, k) => {
      if (!known(v)) { pen = "M"; return; }
      path += `${pen}${x(epochs[k]).toFixed(1)} ${y(v).toFixed(1)}`;
      pen = "L";
    });
    svg.append(drawn("path", {d: path, fill: "none", stroke: line.colour, "stroke-width": 2, "stroke-dasharray": line.dash || "none"}));
    line.values.forEach((v, k) => {
      if (!known(v)) return;
      const dot = drawn("circle", {cx: x(epochs[k]), cy: y(v), r: 2.5, fill: line.colour});
      dot.append(drawn("title", {}, `${line.name}, epoch ${epochs[k]}: ${written(v)}`));
      svg.append(dot);
    });
  }
  const figure = make("figure", {}, make("h4", {}, title), svg);
  if (lines.length > 1) {
    figure.append(make("p", {class: "key"}, ...lines.map((line) => make("span", {style: `--colour: ${line.colour}`}, line.name))));
  }
  return figure;
};

const charts = (i) => {
  const curves = curvesOf(i);
  const epochs = curves.epoch || [];
  const line = (key, name, colour, dash) => key in curves ? [{name, values: curves[key], colour, dash}] : [];
  const found = !epochs.length ? [] : [
    chart("Loss (nats)", epochs, line("loss", "loss", "#0072B2")),
    chart("Accuracy", epochs, [
      ...line("train_accuracy", "training", "#0072B2"),
      ...line("validation_accuracy", "validation", "#D55E00", "6 3"),
      ...line("test_accuracy", "test, posterior mean", "#007a58", "2 3")]),
    chart("KL (nats)", epochs, line("kl", "KL", "#0072B2")),
    chart("Mean σ of the active weights", epochs, line("sigma_mean", "mean σ", "#0072B2")),
  ].filter(Boolean);
  if (!found.length) return make("p", {}, data.unread[i] ? `No curves: ${data.unread[i]}` : "No epoch has been recorded.");
  const kept = epochs.length < data.epochs[i] ? ` Shown are ${epochs.length} of ${data.epochs[i]} epochs.` : "";
  const note = make("p", {class: "soft"}, `Point at a dot for its number.${kept}`);
  return make("div", {}, make("div", {class: "charts"}, ...found), note);
};

const show = (i) => {
  current = i;
  for (const row of $("list").querySelectorAll("tr[data-run]")) {
    if (Number(row.dataset.run) === i) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  $("run-title").textContent = data.run[i];
  const status = make("p", {}, `Status: ${decoded(data.status, i)}${data.cause[i] ? `: ${data.cause[i]}` : ""}.`);
  if (data.cause[i]) status.className = "bad";
  const named = Object.keys(members).filter((name) => members[name].has(i)).join(", ");
  const defaults = make("details", {}, make("summary", {}, "Options at their defaults"), table("", optionRows(i, false)));
  defaults.querySelector("h4").remove();
  const left = make("div", {}, table("Options that are not defaults", optionRows(i, true)), defaults);
  const metrics = Object.keys(data.metrics).map((name) => [name, written(metric(i, name))]).filter(([, v]) => v !== "–");
  const origin = Object.entries(data.provenance).map(([name, column]) => [name, written(decoded(column, i))]).filter(([, v]) => v !== "–");
  const right = make("div", {});
  if (metrics.length) right.append(table("Results", metrics));
  if (origin.length) right.append(table("Versions and machine", origin));
  $("run-body").replaceChildren(status, make("p", {class: "soft"}, `Used by the experiments: ${named}.`), charts(i),
    make("div", {class: "sides"}, left, right));
  $("run").hidden = false;
  history.replaceState(null, "", `#run/${encodeURIComponent(data.run[i])}`);
  $("run-title").focus({preventScroll: true});
  $("run").scrollIntoView();
};

const close = () => {
  const row = $("list").querySelector(`tr[data-run="${current}"] button`);
  current = null;
  $("run").hidden = true;
  $("list").querySelector("tr[aria-current]")?.removeAttribute("aria-current");
  history.replaceState(null, "", "#runs");
  $("runs").scrollIntoView();
  (row || $("words")).focus({preventScroll: true});
};

const fromAddress = () => {
  if (!location.hash.startsWith("#run/")) return;
  let path = "";
  try { path = decodeURIComponent(location.hash.slice(5)); } catch { return; }
  const i = data.run.indexOf(path);
  if (i >= 0) show(i);
};

for (const [id, [values]] of Object.entries(filters)) {
  $(id).append(make("option", {value: ""}, "all"), ...values.map((v) => make("option", {value: v}, id === "by-method" ? data.methods[v] : v)));
  $(id).closest("label").hidden = values.length < 2;
  $(id).addEventListener("change", () => { everything = false; list(); });
}
$("words").addEventListener("input", () => { everything = false; list(); });
$("more").addEventListener("click", () => { everything = true; list(); });
$("close").addEventListener("click", close);
$("list").addEventListener("click", (event) => {
  const button = event.target.closest("thead button");
  if (button) {
    const column = Number(button.dataset.column);
    order = {column, falling: order.column === column && !order.falling};
    head();
    list();
    $("list").querySelector(`thead button[data-column="${column}"]`).focus();
    return;
  }
  const row = event.target.closest("tbody tr");
  if (row) show(Number(row.dataset.run));
});
addEventListener("hashchange", fromAddress);
document.querySelector(".search").hidden = false;
$("list").hidden = false;
head();
list();
fromAddress();
})();
