// What both pages show alike: connection, diagnostics, last calls, facts, toasts, durations.

import { icon } from "/console/icons.js";

export const $ = (id) => document.getElementById(id);

/** Make an element: el("li", {class: "x", text: "y"}, child, …). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Change text only when it differs: screen readers announce every write to a live region. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setTone(node, tone) {
  if ((node.dataset.tone ?? "") !== tone) node.dataset.tone = tone;
}

export function toast(text, tone = "") {
  const node = el("div", { class: "toast", text, "data-tone": tone });
  $("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
    : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

function longDuration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return "less than a minute";
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** Seconds since the epoch, whatever the document carries: seconds, milliseconds or ISO 8601. */
export function epoch(value) {
  if (typeof value === "number") return value > 1e11 ? value / 1000 : value;
  const parsed = Date.parse(value ?? "");
  return Number.isNaN(parsed) ? null : parsed / 1000;
}

function when(value) {
  const seconds = epoch(value);
  if (seconds === null) return "";
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const day = date.toDateString() === new Date().toDateString() ? "" :
    `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, `;
  return day + time;
}

const CALL_WORDS = {
  None: ["No call", ""], Connecting: ["Calling", "accent"], Ringing: ["Ringing", "accent"],
  EarlyMedia: ["Ringing", "accent"], Incoming: ["Incoming call", "accent"], InLobby: ["In the lobby", "accent"],
  Connected: ["In a call", "ok"], LocalHold: ["On hold", "warn"], RemoteHold: ["Held by the other side", "warn"],
  Reconnecting: ["Reconnecting", "warn"], Transferring: ["Transferring", "accent"],
  Disconnecting: ["Ending", ""], Disconnected: ["No call", ""],
};

/** Words and tone of a call state. */
export const callWords = (state) => CALL_WORDS[state] ?? [state ?? "No call", ""];

export const inCall = (state) => !["None", "Disconnected", undefined].includes(state);

/** Of two persons, "the other side" says nothing to somebody who reads about a device: who did what, by direction. */
const DEVICE_DID = {
  "0/local": () => "The device ended the call.",
  "0/remote": (other) => `${other} ended the call.`,
  "603/declined": (other, out) => (out ? `${other} declined.` : "The device declined."),
  "487/cancelled": (other, out) => (out ? "The device gave up before anybody answered."
    : `${other} gave up before the device answered.`),
  "487/noAnswer": (other, out) => (out ? "Nobody answered in time." : "Nobody at the device answered in time."),
  "486/busy": (other, out) => (out ? `${other} was in another call.` : "The device was in another call."),
  "480/unreachable": (other, out) => (out ? `${other} was not online.` : "The device was not online."),
  "480/doNotDisturb": (other, out) => (out ? `${other} does not want to be disturbed.`
    : "The device refused: do not disturb is on."),
};

/** The words of an end reason: its own message where it has one, else who did it, else the vocabulary's. */
export function reasonWords(live, reason, did = {}, other = "The other side", out = true) {
  if (!reason) return { message: "", advice: "", failed: false };
  const key = `${reason.code}/${reason.subCode}`;
  const known = live.words.reasons[key] ?? {};
  const own = reason.message && reason.message !== known.message ? reason.message : "";
  return {
    message: own || did[key]?.(other, out) || known.message || `Ended (${key}).`,
    advice: reason.advice ?? known.advice ?? "",
    failed: (reason.category ?? known.category ?? "Success") !== "Success",
  };
}

const CONNECTIONS = {
  connecting: ["Connecting", ""], open: ["Connected", "ok"], lost: ["Connection lost", "bad"],
  expired: ["Session expired", "bad"],
};

/** How a call of the device ended, of which `call` is the document or the record. */
export const endWords = (live, call) => reasonWords(live, call.endReason ?? call.reason, DEVICE_DID,
  capital(partyName(call.callerInfo)), call.direction !== "Incoming");

/** Show the connection, and a gate over the page when only a fresh address helps. */
export function showConnection(live) {
  const [words, tone] = CONNECTIONS[live.connection];
  setText($("connection"), words);
  setTone($("connection"), tone);
  document.body.classList.toggle("stale", live.connection !== "open" && live.connection !== "connecting");
  const old = document.querySelector(".gate");
  if (live.connection !== "expired") {
    old?.remove();
  } else if (!old) {
    const gate = el("div", { class: "gate", role: "alertdialog", "aria-modal": "true", "aria-labelledby": "gate-title" },
      el("div", { class: "gate-card", tabindex: "-1" },
        el("h1", { id: "gate-title", text: "Your session has expired" }),
        el("p", { text: "Open a fresh address to go on. On the appliance, this command prints one:" }),
        el("pre", { class: "command" }, el("code", { text: "edgecall address" }))));
    document.body.append(gate);
    gate.firstChild.focus();
  }
}

const GOOD = 1; // a quality is 1 good, 2 poor, 3 bad; a flag is true or false

function activeDiagnostics(live) {
  const rows = Object.entries(live.get("diag")).map(([diagnostic, row]) => ({ diagnostic, ...row }));
  return rows.filter(({ value }) => value === true || value > GOOD);
}

export const hasDiagnostic = (live, name) => activeDiagnostics(live).some((row) => row.diagnostic === name);

const DETAILS = 3; // lines of a list that are shown

/** A detail is words, a list of lines, or fields of either. Figures are for programs, and the message tells a direction. */
function detailWords(detail) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) {
    const fields = Object.entries(detail ?? {}).filter(([name]) => name !== "direction");
    return fields.map(([, field]) => detailWords(field)).filter(Boolean).join(", ");
  }
  const more = detail.length > DETAILS ? [`and ${detail.length - DETAILS} more`] : [];
  return [...detail.slice(0, DETAILS).map(String), ...more].join("; ");
}

const MILD = new Set(["nobodyOnDuty", "clockNotSynchronised", "speakingWhileMicrophoneIsMuted", "watchdogRestarted",
  "storageLow", "speakerVolumeIsZero", "microphoneMuteUnexpectedly"]); // worth a look, nothing is broken

/**
 * Active diagnostics with words and advice; `without` is one that the page already tells elsewhere, `advices` are the
 * page's own by diagnostic. Who came on duty meanwhile ends what is said of nobody.
 */
export function showDiagnostics(live, { without = "", advices = {} } = {}) {
  const over = onDuty(live).length ? "nobodyOnDuty" : "";
  const rows = activeDiagnostics(live).filter((row) => row.diagnostic !== without && row.diagnostic !== over);
  setText($("diag-count"), rows.length ? String(rows.length) : "");
  const nodes = rows.map((row) => {
    const words = live.words.diagnostics[row.diagnostic] ?? {};
    const tone = row.value === 2 || MILD.has(row.diagnostic) ? "warn" : "bad";
    const advice = [advices[row.diagnostic] ?? row.advice ?? words.advice, detailWords(row.detail)].filter(Boolean).join(" ");
    return el("li", { "data-tone": tone }, icon("alert"),
      el("div", { class: "grow" }, el("b", { text: row.message ?? words.message ?? row.diagnostic }),
        advice ? el("small", { text: advice }) : null));
  });
  replaceRows($("diag"), nodes, () => el("li", {}, icon("check"), el("span", { class: "grow empty", text: "Everything works." })));
}

/** Replace rows only when they read differently, so that live regions stay quiet. */
export function replaceRows(list, nodes, none) {
  const next = nodes.length ? nodes : [none()];
  const words = next.map((node) => node.textContent + (node.dataset.tone ?? "")).join("\n");
  if (list.dataset.words === words) return;
  list.dataset.words = words;
  list.replaceChildren(...next);
}

/** What people call the other side of a call: `callerInfo` of state/call. */
export function peerName(caller) {
  if (!caller) return "";
  const name = caller.displayName || caller.rawId || "";
  return caller.uri === "operator:*" || name === "Operators" ? "Operator" : name;
}

/** The other side of a call within a sentence. */
export function partyName(caller) {
  const name = peerName(caller);
  return !name || name === "Operator" ? "the operator" : name;
}

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

export function showCalls(live) {
  const calls = (live.get("calls").calls ?? []).slice(0, 8);
  const nodes = calls.map((call) => {
    const out = call.direction === "Outgoing";
    const { message, failed } = endWords(live, call);
    const seconds = (call.durationMs ?? 0) / 1000;
    return el("li", { "data-tone": failed ? "bad" : "" }, icon(out ? "phone-out" : "phone-in"),
      el("div", { class: "grow" }, el("b", { text: peerName(call.callerInfo) || "Unknown" }),
        el("small", { text: seconds >= 1 ? `${duration(seconds)} · ${message}` : message })),
      el("time", { text: when(call.began ?? call.startedAt ?? call.since) }));
  });
  replaceRows($("calls"), nodes, () => el("li", { class: "empty", text: "No calls yet." }));
}

export function showFacts(live) {
  const device = live.get("device");
  const name = device.name || live.session?.device?.name || "Edgecall";
  setText($("device-name"), name);
  const uptime = live.get("health").uptimeSeconds ?? device.uptimeS;
  const devices = (live.get("devices").devices ?? []).filter((row) => row.present !== false && row.used !== false);
  const named = (kind) => devices.filter((row) => row.kind === kind).map((row) => row.name || row.id).join(", ");
  const net = live.get("net");
  const broker = net.brokerConnected;
  const rows = [
    ["Id", device.id ?? live.session?.device?.id],
    ["Board", device.model || device.board],
    ["Version", device.version],
    ["Running for", uptime === undefined || uptime === null ? null : longDuration(uptime)],
    ["Camera", named("camera")], ["Microphone", named("microphone")], ["Loudspeaker", named("speaker")],
    ["Addresses", (net.addresses ?? []).map((a) => (typeof a === "string" ? a : a.address)).join(", ")],
    ["Broker", broker === undefined || broker === null ? null : broker ? "Connected" : "Not connected"],
  ].filter(([, value]) => value);
  const words = JSON.stringify(rows);
  if ($("facts").dataset.words === words) return;
  $("facts").dataset.words = words;
  $("facts").replaceChildren(...rows.map(([label, value]) =>
    el("div", {}, el("dt", { text: label }), el("dd", { text: String(value) }))));
}

/** Names on duty, from state/device. */
export function onDuty(live) {
  const list = live.get("device").onDuty ?? [];
  return Array.isArray(list) ? list.map((who) => (typeof who === "string" ? who : who.displayName ?? who.identity)) : [];
}

/** Something of state/io by kind and name; documents carry maps or lists of {name, …}. */
export function ioPart(live, kind) {
  const part = live.get("io")[kind] ?? {};
  const entries = Array.isArray(part) ? part.map((row) => (typeof row === "string" ? [row, {}] : [row.name, row]))
    : Object.entries(part);
  return entries.map(([name, row]) => [name, row === Object(row) && !Array.isArray(row) ? row : { value: row }]);
}

/** Run at most once per animation frame, or soon where there are none (background tabs). */
export function soon(run) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; run(); }, 16);
  };
}
