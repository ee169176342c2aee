// The console: asks /api/v1/live each second and shows what it says.
// Everything from outside (device numbers, keys, payloads) is hostile: it enters the page
// through textContent and attributes of our own only. The page's policy forbids the rest.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const EVERY = 1000;
const END_STATES = ["SUCCEEDED", "REFUSED", "TIMED_OUT", "EXPIRED", "CANCELLED", "FAILED"];

const chosen = { device: null, key: null, byHand: false, span: 300000 };
let points = [];        // [ts, number] of the chosen value, by time
let kindShown = null;   // the kind of the newest point of the chosen value
let loading = 0;        // number of the newest load of points; answers of older ones are dropped
let live = null;        // the newest answer of /api/v1/live
let skew = 0;           // server's clock minus ours, ms
let followed = null;    // id of the command that the form sent
let hover = null;       // x of the pointer over the chart, px
const means = new Map(); // closed windows of the chosen value: start → window

// ---- small parts -------------------------------------------------------------------------

function make(tag, className, parent) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (parent) parent.append(element);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function draw(tag, attributes, parent) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

// Rows keyed by identity: what stays is changed in place, so that focus and scroll stay too.
function reconcile(list, items, keyOf, create, update) {
  const old = list.rows || new Map();
  const rows = new Map();
  let place = list.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (rows.has(key)) continue;
    let row = old.get(key);
    if (!row) {
      row = create(item);
      if (list.rows && old.size) row.classList.add("fresh");
    }
    update(row, item);
    rows.set(key, row);
    if (row !== place) list.insertBefore(row, place);
    else place = place.nextElementSibling;
  }
  for (const [key, row] of old) if (!rows.has(key)) row.remove();
  list.rows = rows;
}

const now = () => Date.now() + skew;

function age(ts) {
  const seconds = Math.max(0, Math.round((now() - ts) / 1000));
  if (seconds < 2) return "now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function clock(ts, withSeconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (withSeconds) options.second = "2-digit";
  return new Date(ts).toLocaleTimeString([], options);
}

function moment(ts) { // the time of day, with the date where it is not today's
  const date = new Date(ts);
  if (Number.isNaN(date.getTime())) return "–";
  const today = new Date(now()).toDateString() === date.toDateString();
  return today ? clock(ts) : `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${clock(ts, false)}`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (value !== 0 && (Math.abs(value) >= 1e9 || Math.abs(value) < 1e-3)) return value.toExponential(3);
  return value.toLocaleString([], { maximumFractionDigits: Math.abs(value) >= 100 ? 1 : 2, useGrouping: false });
}

async function ask(path, options = {}) {
  const reply = await fetch(path, { ...options, signal: AbortSignal.timeout(15000), cache: "no-store" });
  let content = {};
  try { content = await reply.json(); } catch { /* no JSON: the status says enough */ }
  if (!reply.ok) {
    const error = new Error([content.error || `status ${reply.status}`, content.remedy].filter(Boolean).join("; "));
    error.short = content.error;
    error.status = reply.status;
    error.parameter = content.parameter;
    throw error;
  }
  return content;
}

// ---- devices -----------------------------------------------------------------------------

function showDevices(devices, total) {
  const wanted = $("find").value.trim().toLowerCase();
  const shown = wanted ? devices.filter((d) => d.device.toLowerCase().includes(wanted)) : devices;
  reconcile($("devices"), shown, (d) => d.device, createDevice, updateDevice);
  $("devices-empty").hidden = shown.length > 0;
  say($("devices-empty"), devices.length ? "No device of that name." : "No device has spoken yet.");
  const online = devices.filter((d) => d.online).length;
  const more = total > devices.length ? ` of ${total}` : "";
  say($("counts"), devices.length ? `${devices.length}${more} device${devices.length === 1 ? "" : "s"}, ${online} online` : "");
  reconcile($("known-devices"), devices, (d) => d.device, (d) => {
    const option = make("option");
    option.value = d.device;
    return option;
  }, () => {});
}

function createDevice(device) {
  const row = make("li", "device");
  const head = make("div", "device-head", row);
  row.dot = make("span", "dot", head);
  row.dot.setAttribute("role", "img");
  make("span", "device-name", head).textContent = device.device;
  row.seen = make("span", "device-seen", head);
  row.values = make("div", "values", row);
  return row;
}

function updateDevice(row, device) {
  const state = device.online === null ? "unknown" : device.online ? "online" : "offline";
  row.dot.className = `dot ${device.online ? "on" : "off"}`;
  row.dot.setAttribute("aria-label", state);
  row.dot.title = state;
  say(row.seen, device.last_seen ? `${device.online ? "" : state + ", "}${age(device.last_seen)}` : state);
  reconcile(row.values, device.values, (v) => v.key, (v) => createValue(device.device, v), (chip, v) => {
    say(chip.now, number(v.value));
    say(chip.age, age(v.ts));
    chip.title = `${v.key}: ${String(v.value)} at ${new Date(v.ts).toISOString()}`;
    chip.setAttribute("aria-pressed", String(chosen.device === device.device && chosen.key === v.key));
  });
}

function createValue(device, value) {
  const chip = make("button", "value");
  chip.type = "button";
  make("span", "value-key", chip).textContent = value.key || "(empty)";
  chip.now = make("span", "value-now", chip);
  chip.age = make("span", "value-age", chip);
  chip.addEventListener("click", () => { choose(device, value.key, true); showDevices(live.devices, live.devices_total); });
  return chip;
}

// ---- chart -------------------------------------------------------------------------------

function choose(device, key, byHand) {
  Object.assign(chosen, { device, key, byHand });
  means.clear();
  kindShown = null;
  if (byHand) $("send-device").value = device;
  say($("chart-title"), `${device} · ${key || "(empty)"}`);
  reload();
}

// At first, a value that is folded into windows; else the first number of a device that is online.
function chooseFirst(devices, windows) {
  if (chosen.device !== null) return;
  const candidates = [];
  for (const device of devices) {
    for (const value of device.values) {
      if (value.kind !== "number") continue;
      const folded = windows.some((w) => w.device === device.device && w.key === value.key);
      candidates.push({ device: device.device, key: value.key, rank: (folded ? 2 : 0) + (device.online ? 1 : 0) });
    }
  }
  if (!candidates.length) return;
  const first = candidates.reduce((best, one) => (one.rank > best.rank ? one : best));
  choose(first.device, first.key, false);
}

function reload() {
  points = [];
  loadPoints(true).catch(() => { /* the next beat says what is wrong */ });
}

async function loadPoints(whole) {
  if (chosen.device === null) return;
  const turn = whole ? ++loading : loading;
  const end = Math.ceil(now()) + 60000;
  const newest = points.length ? points[points.length - 1][0] : 0;
  // A few seconds are asked for again: points may arrive out of order.
  const start = Math.max(0, Math.floor(whole || !newest ? now() - chosen.span : Math.max(newest - 5000, now() - chosen.span)));
  const query = new URLSearchParams({ key: chosen.key, start, end, limit: 10000 });
  const answer = await ask(`/api/v1/devices/${encodeURIComponent(chosen.device)}/telemetry?${query}`);
  if (turn !== loading) return;
  const got = answer.points.filter((p) => typeof p.number === "number").map((p) => [p.ts, p.number]);
  if (answer.points.length) kindShown = answer.points[answer.points.length - 1].kind;
  points = [...points.filter((p) => p[0] < start), ...got].sort((a, b) => a[0] - b[0]);
  showChart();
}

function keepMeans(windows) {
  for (const w of windows) {
    if (w.device === chosen.device && w.key === chosen.key && typeof w.value === "number") means.set(w.start, w);
  }
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

// The points in runs: silence is a gap, not a straight line. Silence is six times the usual interval.
function unbroken(shown) {
  const steps = shown.slice(1).map((p, i) => p[0] - shown[i][0]).sort((a, b) => a - b);
  const silence = 6 * Math.max(1000, steps[Math.floor(steps.length / 2)] || 0);
  const runs = [[shown[0]]];
  for (let i = 1; i < shown.length; i += 1) {
    if (shown[i][0] - shown[i - 1][0] > silence) runs.push([]);
    runs[runs.length - 1].push(shown[i]);
  }
  return runs;
}

const TIME_STEPS = [10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3, 14400e3, 21600e3];

function showChart() {
  const plot = $("plot");
  const width = plot.clientWidth, height = plot.clientHeight;
  const to = now(), from = to - chosen.span;
  while (points.length && points[0][0] < from - chosen.span / 20) points.shift();
  for (const start of means.keys()) if (start < from - chosen.span / 20) means.delete(start);
  if (!width || chosen.device === null) return;
  const shown = points.filter((p) => p[0] <= to + 60000);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (!shown.length) {
    svg.setAttribute("aria-label", "no numbers in this time span");
    plot.replaceChildren(svg);
    const text = kindShown && kindShown !== "number" && kindShown !== "bool";
    say($("chart-note"), text ? "This value is text; only numbers are drawn." : "No numbers in this time span.");
    say($("reading"), "–");
    say($("reading-at"), "");
    return;
  }
  const box = { left: 46, right: width - 12, top: 10, bottom: height - 24 };
  const numbers = [...shown.map((p) => p[1]), ...[...means.values()].map((w) => w.value)];
  let low = Math.min(...numbers), high = Math.max(...numbers);
  const room = (high - low) * 0.1 || Math.abs(high) * 0.05 || 1;
  low -= room; high += room;
  const x = (ts) => box.left + ((ts - from) / chosen.span) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
  const at = ([ts, v]) => `${x(Math.min(ts, to)).toFixed(1)},${y(v).toFixed(1)}`;

  for (const tick of ticks(low, high, 4)) {
    draw("line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "grid" }, svg);
    draw("text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, svg).textContent = number(tick);
  }
  const step = TIME_STEPS.find((s) => chosen.span / s <= Math.max(3, width / 110)) || 43200e3;
  const zone = new Date(to).getTimezoneOffset() * 60e3;
  for (let ts = Math.ceil((from - zone) / step) * step + zone; ts <= to; ts += step) {
    if (x(ts) < box.left + 20 || x(ts) > box.right - 20) continue;
    draw("text", { x: x(ts), y: height - 6, "text-anchor": "middle" }, svg).textContent = clock(ts, step < 60e3);
  }
  const clip = draw("clipPath", { id: "inside" }, draw("defs", {}, svg));
  draw("rect", { x: box.left, y: 0, width: box.right - box.left, height }, clip);
  const inside = draw("g", { "clip-path": "url(#inside)" }, svg);
  const runs = unbroken(shown);
  const foot = (p) => `${at(p).split(",")[0]},${box.bottom}`;
  const areas = runs.map((run) => `M${foot(run[0])}L${run.map(at).join("L")}L${foot(run[run.length - 1])}Z`);
  draw("path", { d: areas.join(""), class: "area" }, inside);
  draw("path", { d: runs.map((run) => `M${run.map(at).join("L")}`).join(""), class: "line" }, inside);
  for (const w of means.values()) {
    draw("line", { x1: x(w.start) + 2, x2: x(w.end) - 2, y1: y(w.value), y2: y(w.value), class: "mean" }, inside);
  }
  let point = shown[shown.length - 1];
  if (hover !== null) {
    const wanted = from + ((hover - box.left) / (box.right - box.left)) * chosen.span;
    point = shown.reduce((best, p) => (Math.abs(p[0] - wanted) < Math.abs(best[0] - wanted) ? p : best));
    draw("line", { x1: x(point[0]), x2: x(point[0]), y1: box.top, y2: box.bottom, class: "cross" }, svg);
  }
  draw("circle", { cx: x(Math.min(point[0], to)), cy: y(point[1]), r: 4, class: "last" }, svg);
  const values = shown.map((p) => p[1]);
  const summary = `lowest ${number(Math.min(...values))}, highest ${number(Math.max(...values))}, ${values.length} point${values.length === 1 ? "" : "s"}`;
  svg.setAttribute("aria-label", `${chosen.key} of ${chosen.device}: newest ${number(values[values.length - 1])}, ${summary}`);
  plot.replaceChildren(svg);
  say($("reading"), number(point[1]));
  say($("reading-at"), `at ${moment(point[0])}`);
  say($("chart-note"), means.size ? `${summary}; bars: closed windows` : summary);
}

// ---- lists of what happened --------------------------------------------------------------

function createRow() {
  const row = make("li", "row");
  row.time = make("span", "row-time", row);
  row.main = make("span", "row-main", row);
  row.tag = make("span", "tag", row);
  row.more = make("span", "row-more", row);
  return row;
}

function updateRow(row, { ts, main, tag, tone = "", more = "" }) {
  say(row.time, moment(ts));
  row.time.title = ts ? new Date(ts).toISOString() : "";
  say(row.main, main);
  say(row.tag, tag);
  row.tag.dataset.tone = tone;
  say(row.more, more);
  row.more.title = more;
}

function showRows(id, items, keyOf, view) {
  reconcile($(id), items, keyOf, createRow, (row, item) => updateRow(row, view(item)));
  $(`${id}-empty`).hidden = items.length > 0;
}

// What a device answered: its own words where it has some, else the JSON.
function answered(result) {
  if (!result) return "";
  try {
    const said = JSON.parse(result);
    if (said && typeof said.message === "string" && said.message) return [said.errcode, said.message].filter(Boolean).join(" ");
  } catch { /* no JSON: as it is */ }
  return String(result);
}

const tones = { SUCCEEDED: "good", REFUSED: "bad", FAILED: "bad", TIMED_OUT: "warn", EXPIRED: "warn", CANCELLED: "" };

function showHappenings(view) {
  showRows("alarms", view.alarms, (a) => a.id, (a) => ({
    ts: a.started_at, main: `${a.rule} on ${a.device}`, tag: a.state, tone: a.state === "active" ? "bad" : "good",
    more: `${a.severity || ""}${a.value === null || a.value === undefined ? "" : `, value ${number(a.value)}`}${a.ended_at ? `, ended ${moment(a.ended_at)}` : ""}`,
  }));
  showRows("commands", view.commands, (c) => c.id, (c) => ({
    ts: c.created_at, main: `${c.method} → ${c.device}`, tag: c.state, tone: tones[c.state] ?? "",
    more: [c.params && c.params !== "{}" ? c.params : "", c.result ? `answered: ${answered(c.result)}` : ""].filter(Boolean).join(" · "),
  }));
  showRows("windows", view.windows.slice(0, 30), (w) => JSON.stringify([w.window, w.device, w.key, w.start]), (w) => ({
    ts: w.end, main: `${w.device} · ${w.key}`, tag: `${w.aggregate} ${number(w.value)}`,
    more: `${w.window}: ${moment(w.start)} to ${moment(w.end)}, ${w.count} point${w.count === 1 ? "" : "s"}`,
  }));
  showRows("letters", view.dead_letters, (l) => l.id, (l) => ({
    ts: l.ts, main: l.device || "(no device)", tag: l.reason, tone: "warn",
    more: [l.detail, l.topic, l.stage ? `at ${l.stage}` : "", l.payload].filter(Boolean).join(" · "),
  }));
}

// ---- sending a command -------------------------------------------------------------------

function outcome(text, tone = "") {
  say($("send-outcome"), text);
  $("send-outcome").dataset.tone = tone;
}

function wrong(field, text) {
  $(field).setAttribute("aria-invalid", "true");
  $(field).focus();
  outcome(text, "bad");
}

async function send(event) {
  event.preventDefault();
  for (const field of ["send-device", "send-method", "send-params"]) $(field).removeAttribute("aria-invalid");
  const device = $("send-device").value.trim(), method = $("send-method").value.trim(), text = $("send-params").value.trim();
  if (!device) return wrong("send-device", "Which device?");
  if (!method) return wrong("send-method", "Which method?");
  const content = { method };
  if (text) {
    try { content.params = JSON.parse(text); } catch (error) { return wrong("send-params", `The parameters are not JSON: ${error.message}`); }
    if (content.params === null || typeof content.params !== "object" || Array.isArray(content.params)) {
      return wrong("send-params", 'The parameters must be an object, like {"on": true}.');
    }
  }
  $("send-button").disabled = true;
  outcome("Sending …");
  try {
    const answer = await ask(`/api/v1/devices/${encodeURIComponent(device)}/commands`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
    });
    followed = answer.id;
    outcome(`Accepted as ${answer.id}; waiting for the device …`);
  } catch (error) {
    if (["device", "method", "params"].includes(error.parameter)) wrong(`send-${error.parameter}`, error.message);
    else outcome(error.status ? error.message : "The server does not answer; the command was not taken.", "bad");
  } finally {
    $("send-button").disabled = false;
  }
}

function follow(commands) {
  const command = commands.find((c) => c.id === followed);
  if (!command) return;
  const ended = END_STATES.includes(command.state);
  outcome(`${command.method} → ${command.device}: ${command.state}${command.result ? `, answered: ${answered(command.result)}` : ""}`, ended ? tones[command.state] || "bad" : "");
  if (ended) followed = null;
}

// ---- the beat ----------------------------------------------------------------------------

function showState(state, text, notice = "") {
  $("state").dataset.state = state;
  say($("state-text"), text);
  say($("notice"), notice);
  $("notice").hidden = !notice;
}

function showHealth(health) {
  const ill = Object.entries(health).filter(([, part]) => part && typeof part === "object" && part.ok === false);
  if (!ill.length) return showState("ok", "all parts well");
  showState("bad", `${ill.length} part${ill.length === 1 ? "" : "s"} not well`, ill.map(([name, part]) => `${name}: ${part.detail}`).join(" · "));
}

async function beat() {
  const began = Date.now();
  try {
    const view = await ask("/api/v1/live");
    skew = view.now - (began + Date.now()) / 2;
    live = view;
    showHealth(view.health);
    showDevices(view.devices, view.devices_total);
    chooseFirst(view.devices, view.windows);
    keepMeans(view.windows);
    showHappenings(view);
    if (followed) follow(view.commands);
    await loadPoints(false);
  } catch (error) {
    if (error.status === 503) showState("bad", "store away", `The store is away; what stands here is what was last known. Nothing is lost, and it goes on when the store is back. (${error.short || error.message})`);
    else if (error.status) showState("bad", "error", error.message);
    else showState("bad", "no connection", "The console's server does not answer; trying again each second.");
    if (live) showDevices(live.devices, live.devices_total);
  }
}

async function run() {
  for (;;) {
    const began = Date.now();
    if (!document.hidden) await beat();
    await new Promise((resume) => setTimeout(resume, Math.max(100, EVERY - (Date.now() - began))));
  }
}

$("send").addEventListener("submit", send);
$("find").addEventListener("input", () => live && showDevices(live.devices, live.devices_total));
$("spans").addEventListener("change", (event) => {
  chosen.span = Number(event.target.value);
  reload();
});
$("plot").addEventListener("pointermove", (event) => { hover = event.clientX - $("plot").getBoundingClientRect().left; showChart(); });
$("plot").addEventListener("pointerleave", () => { hover = null; showChart(); });
window.addEventListener("resize", showChart);
run();
