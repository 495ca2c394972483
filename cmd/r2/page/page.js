"use strict";
const $ = id => document.getElementById(id);
const pool = JSON.parse($("pool").textContent); // the pool's models, weakest first
const show = (id, on) => { $(id).hidden = !on; };
const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
const usd = x => Number(x.toPrecision(4)).toFixed(12).replace(/\.?0+$/, "");

// Tabs: a click, or the arrow keys.
const tabs = [...document.querySelectorAll("[role=tab]")];
function open(tab) {
  for (const t of tabs) {
    const on = t === tab;
    t.setAttribute("aria-selected", on);
    t.tabIndex = on ? 0 : -1;
    show(t.getAttribute("aria-controls"), on);
  }
  history.replaceState(null, "", "#" + tab.getAttribute("aria-controls"));
}
tabs.forEach((t, i) => {
  t.addEventListener("click", () => open(t));
  t.addEventListener("keydown", e => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    open(next);
    next.focus();
  });
});
open(tabs.find(t => "#" + t.getAttribute("aria-controls") === location.hash) || tabs[0]);
for (const [area, form] of [["question", "askForm"], ["say", "chatForm"]]) {
  $(area).addEventListener("keydown", e => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); $(form).requestSubmit(); } });
}

function trouble(text) { $("trouble").textContent = text || ""; show("trouble", !!text); }

// call asks the server; a refusal is an Error with the server's own words.
async function call(path, body, signal) {
  const headers = {};
  const key = $("key").value || sessionStorage.getItem("key");
  if (key) headers.Authorization = "Bearer " + key;
  if (body) headers["Content-Type"] = "application/json";
  let r;
  try {
    r = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (e) {
    throw e.name === "AbortError" ? e : new Error("The server cannot be reached.");
  }
  if (r.status === 401 || r.status === 403) show("keyform", true);
  if (!r.ok) {
    const text = await r.text();
    let message = text;
    try { message = JSON.parse(text).error.message; } catch { /* not an error of this service */ }
    const e = new Error(message || "The server answered " + r.status + ".");
    e.status = r.status;
    throw e;
  }
  return r;
}
$("keyform").addEventListener("submit", e => { e.preventDefault(); sessionStorage.setItem("key", $("key").value); start(); });

// events yields the objects of a stream of server-sent events.
async function* events(r) {
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The answer broke off.");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const o = JSON.parse(data);
      if (o.error) throw Object.assign(new Error(o.error.message), { trace: o.r2 && o.r2.trace });
      yield o;
    }
  }
}

// busy runs work with a form's button off and its stop button shown.
async function busy(go, stop, work) {
  const c = new AbortController();
  $(stop).onclick = () => c.abort();
  $(go).disabled = true;
  show(stop, true);
  trouble("");
  try {
    await work(c.signal);
  } catch (e) {
    trouble(e.name === "AbortError" ? "Stopped." : e.message);
    return e;
  } finally {
    $(go).disabled = false;
    show(stop, false);
  }
}

// The chain of subtasks.
function step(i) {
  const chain = $("chain");
  while (chain.children.length < i) {
    const li = make("li");
    li.append(make("div", "subtask"), make("div", "to dim"), make("div", "answer"));
    chain.append(li);
  }
  return chain.children[i - 1];
}
function to(li, model, confidence) {
  const d = li.querySelector(".to");
  d.replaceChildren("→ ", make("span", "badge", model));
  const card = pool.find(m => m.name === model);
  if (card) d.append(` ${card.group}, rank ${card.rank} of ${pool.length}`);
  if (confidence !== undefined) {
    const bar = make("span", "bar"), fill = make("i");
    fill.style.width = 100 * confidence + "%";
    bar.append(fill);
    d.append(", confidence ", bar, ` ${(100 * confidence).toFixed(0)} %`);
  }
}
function event(e) {
  const li = e.subtask ? step(e.subtask) : null;
  switch (e.stage) {
  case "plan":
    e.plan.forEach((s, i) => { step(i + 1).querySelector(".subtask").textContent = s; });
    state(`A plan of ${e.plan.length} subtask${e.plan.length > 1 ? "s" : ""}; choosing models`);
    break;
  case "allocate":
    to(li, e.model, e.confidence);
    state("Solving");
    break;
  case "solve":
  case "review":
    li.querySelector(".answer").textContent = e.text.trim();
    li.classList.add("done");
    break;
  case "integrate":
    state("");
  }
}
function state(text) { $("state").textContent = text; $("state").classList.toggle("wait", !!text); show("state", !!text); }

// The bill: by stage, and what the same tokens cost on the largest model.
function bill(t, seconds) {
  const stages = ["plan", "allocate", "solve", "review", "integrate"].filter(s => t.ledger && t.ledger[s]);
  const rows = stages.map(name => { const s = t.ledger[name]; return [name, s.calls, s.in, s.out, s.cost, s.seconds]; });
  rows.push(["all", (t.calls || []).length, t.in, t.out, t.cost, seconds]);
  $("billRows").replaceChildren(...rows.map(([stage, calls, tin, out, cost, s]) => {
    const tr = make("tr");
    tr.append(make("td", "", stage), ...[calls, tin, out, usd(cost), s.toFixed(2)].map(x => make("td", "n", x)));
    return tr;
  }));
  const most = pool[pool.length - 1], solve = (t.calls || []).filter(c => c.stage === "solve");
  if (most && solve.length) {
    const there = solve.reduce((sum, c) => sum + (c.in * most.price.input + c.out * most.price.output) / 1e6, 0);
    const here = solve.reduce((sum, c) => sum + c.cost, 0);
    const saved = there > 0 ? `, ${(100 * (1 - here / there)).toFixed(0)} % less` : "";
    $("against").textContent = `The subtasks cost ${usd(here)} USD${saved} than ${usd(there)} USD for the same tokens all on ${most.name}, the largest model of the pool.`;
  }
  if (t.left_out) $("against").textContent += ` Not to be chosen, for lack of answers of late: ${t.left_out.join(", ")}.`;
  show("bill", true);
}

$("askForm").addEventListener("submit", async ev => {
  ev.preventDefault();
  $("chain").replaceChildren();
  for (const id of ["final", "bill"]) show(id, false);
  $("against").textContent = "";
  const began = performance.now();
  let trace, answer = "";
  const failed = await busy("askGo", "askStop", async signal => {
    state("Planning");
    const r = await call("/v1/chat/completions", { model: "r2", stream: true, r2: { trace: true }, messages: [{ role: "user", content: $("question").value }] }, signal);
    for await (const o of events(r)) {
      if (o.r2 && o.r2.event) event(o.r2.event);
      if (o.r2 && o.r2.trace) trace = o.r2.trace;
      for (const c of o.choices || []) answer += c.delta && c.delta.content || "";
    }
    $("answer").textContent = answer;
    show("final", true);
  });
  state("");
  trace = trace || failed && failed.trace;
  if (trace) bill(trace, (performance.now() - began) / 1000);
});

// The chat.
let talk = [];
$("fresh").addEventListener("click", () => { talk = []; $("turns").replaceChildren(); $("took").textContent = ""; $("say").focus(); });
function turn(role, text) {
  const d = make("div", "turn " + role, text);
  $("turns").append(d);
  return d;
}
$("chatForm").addEventListener("submit", async ev => {
  ev.preventDefault();
  const text = $("say").value;
  talk.push({ role: "user", content: text });
  turn("user", text);
  $("say").value = "";
  const d = turn("assistant", "");
  const began = performance.now();
  let answer = "", usage;
  const failed = await busy("sayGo", "sayStop", async signal => {
    const r = await call("/v1/chat/completions", { model: $("model").value, stream: true, stream_options: { include_usage: true }, messages: talk }, signal);
    for await (const o of events(r)) {
      for (const c of o.choices || []) answer += c.delta && c.delta.content || "";
      usage = o.usage || usage;
      d.textContent = answer;
    }
  });
  if (failed && !answer) { // nothing was said: the message may be sent again
    d.previousSibling.remove();
    d.remove();
    talk.pop();
    $("say").value = text;
    return;
  }
  talk.push({ role: "assistant", content: answer });
  const s = (performance.now() - began) / 1000;
  $("took").textContent = usage ? `${usage.completion_tokens} tokens in ${s.toFixed(1)} s` : "";
});

// Live metrics.
let before, rates = [];
async function metrics() {
  if ($("metrics").hidden) return;
  let text;
  try {
    text = await (await call("/metrics")).text();
  } catch (e) {
    show("noMetrics", e.status === 404);
    show("live", e.status !== 404);
    return;
  }
  const rows = text.split("\n").filter(l => l && l[0] !== "#" && !/_bucket[{ ]/.test(l) && l.startsWith("r2:"));
  let written = 0;
  $("gauges").replaceChildren(...rows.map(l => {
    const at = l.lastIndexOf(" "), name = l.slice(0, at), value = Number(l.slice(at + 1));
    if (name.startsWith("r2:generation_tokens_total")) written += value;
    const tr = make("tr");
    tr.append(make("td", "", name), make("td", "n", Number.isInteger(value) ? value : value.toPrecision(4)));
    return tr;
  }));
  const now = performance.now();
  if (before) {
    rates = [...rates, (written - before.written) / (now - before.now) * 1000].slice(-120);
    const top = Math.max(1, ...rates);
    $("spark").setAttribute("points", rates.map((r, i) => `${i},${98 - 96 * r / top}`).join(" "));
  }
  before = { written, now };
}
setInterval(metrics, 1000);

async function start() {
  try {
    const list = (await (await call("/v1/models")).json()).data.map(m => m.id);
    $("model").replaceChildren(...list.map(id => new Option(id, id)));
    const router = list.includes("r2");
    show("noRouter", !router);
    $("askGo").disabled = !router;
    if (!router && !location.hash.includes("chat")) open(tabs[1]);
    show("keyform", false);
    trouble("");
  } catch (e) {
    trouble(e.message);
  }
}
start();
