// The device page: virtual front panel of a simulated board, or the state of a real one.

import { fillIcons, setIcon } from "/console/icons.js";
import { PanelStream } from "/console/panel.js";
import {
  $, callWords, capital, duration, el, endWords, epoch, hasDiagnostic, inCall, ioPart, onDuty, partyName, replaceRows,
  setText, setTone, showCalls, showConnection, showDiagnostics, showFacts, soon, toast,
} from "/console/view.js";
import { command, Live } from "/console/wire.js";

const DOWN_S = 12; // how long a key stays down at most, should its letting go never arrive: longer than any long press
const UP_S = 0.05; // from now on

const live = new Live();
const stream = new PanelStream();

fillIcons();

// --- keys ---------------------------------------------------------------------------------------------------------

async function press(button, seconds) {
  try {
    await command("sim.press", { button, seconds });
  } catch (error) {
    toast(error.message, "bad");
  }
}

/** A key that goes down and up as it does here, by pointer, by space bar and by return: what is long, the board says. */
function key(node, button) {
  let isDown = false;
  let sent = Promise.resolve(); // one after the other: letting go must not overtake the press
  const drive = (seconds) => {
    sent = sent.then(() => press(button, seconds));
  };
  const down = () => {
    if (isDown) return;
    isDown = true;
    node.classList.add("down");
    drive(DOWN_S);
  };
  const up = () => {
    if (!isDown) return;
    isDown = false;
    node.classList.remove("down");
    drive(UP_S);
  };
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    node.setPointerCapture(event.pointerId);
    down();
  });
  node.addEventListener("pointerup", up);
  node.addEventListener("pointercancel", up);
  node.addEventListener("contextmenu", (event) => event.preventDefault());
  node.addEventListener("keydown", (event) => {
    if (![" ", "Enter"].includes(event.key)) return;
    event.preventDefault();
    if (!event.repeat) down();
  });
  node.addEventListener("keyup", (event) => {
    if (![" ", "Enter"].includes(event.key)) return;
    event.preventDefault();
    up();
  });
  node.addEventListener("blur", up);
  // Assistive technology clicks without pointer or key; a click that follows a pointer counts at least one.
  node.addEventListener("click", (event) => {
    if (event.detail === 0) drive(UP_S);
  });
}

key($("call-key"), "call");
key($("mute-key"), "mute");

// --- lamps --------------------------------------------------------------------------------------------------------

const blinking = new Map(); // lamp name -> {words, timer}

/** A lamp follows its pattern of [seconds, lit]; a steady one has a single entry. */
function showLamp(name, row) {
  const pattern = Array.isArray(row.pattern ?? row.value) ? row.pattern ?? row.value
    : [[1, Boolean(row.lit ?? row.value)]];
  const words = JSON.stringify(pattern);
  if (blinking.get(name)?.words === words) return;
  clearTimeout(blinking.get(name)?.timer);
  const nodes = document.querySelectorAll(`[data-lamp="${CSS.escape(name)}"]`);
  const entry = { words, timer: 0 };
  blinking.set(name, entry);
  const step = (index) => {
    const [seconds, lit] = pattern[index];
    for (const node of nodes) node.classList.toggle("lit", lit);
    if (pattern.length > 1) entry.timer = setTimeout(() => step((index + 1) % pattern.length), Math.max(50, seconds * 1000));
  };
  if (pattern.length) step(0);
}

function lampWords(row) {
  const pattern = row.pattern ?? row.value;
  if (Array.isArray(pattern) && pattern.length > 1) return "blinking";
  return (Array.isArray(pattern) ? pattern[0]?.[1] : row.lit ?? row.value) ? "lit" : "dark";
}

// --- what is shown ------------------------------------------------------------------------------------------------

/** The appliance is out of reach: what was last known of it is no claim any more. */
const lost = () => live.connection === "lost" || live.connection === "expired";

function headline() {
  const call = live.get("call");
  const state = call.state ?? "None";
  const peer = partyName(call.callerInfo);
  if (lost()) return ["Connection to the appliance lost", "What it does is not known here until the connection is back."];
  if (inCall(state)) {
    return {
      Connecting: ["Calling", `Reaching ${peer}.`],
      Ringing: ["It rings at the other side", "The call begins as soon as somebody answers."],
      Incoming: [`${capital(peer)} calls`, "Press the call button to answer, hold it to decline."],
      Connected: [`Talking with ${peer}`, call.isMuted ? "The microphone of the device is muted." : "Press the call button to hang up."],
      LocalHold: ["The device holds the call", "Nothing is sent or played until it is resumed."],
      RemoteHold: [`${capital(peer)} holds the call`, "Please wait, or press the call button to hang up."],
      Reconnecting: ["Reconnecting", "Sound and picture were interrupted; the call goes on by itself."],
      Disconnecting: ["Hanging up", ""],
    }[state] ?? [callWords(state)[0], ""];
  }
  if (live.connection !== "open") return ["Starting", "Waiting for the state of the device."];
  if (live.get("device").safeMode) return ["Safe mode", "Sound, picture and calls are off after repeated failures. See the log of the device."];
  const device = live.get("device");
  const refuses = device.doNotDisturbNow ?? device.doNotDisturb;
  const unreached = call.endReason?.subCode === "unreachable" && (call.callerInfo?.uri ?? "operator:").startsWith("operator:");
  const ended = state === "Disconnected" && !unreached ? endWords(live, call) : { message: "", advice: "", failed: false };
  const last = ended.message ? `${ended.message} ` : "";
  const duty = onDuty(live);
  if (!duty.length) return ["Nobody is on duty", `${last}${refuses ? "Do not disturb is on: incoming calls are refused." : ""}`];
  if (ended.failed) return ["The call failed", [ended.message, ended.advice].filter(Boolean).join(" ")];
  const who = `On duty: ${duty.join(", ")}.`;
  if (refuses) return ["Do not disturb", `${last}Incoming calls are refused. ${who}`];
  return ["Ready", `${last}${who}`];
}

const HINTS = {
  None: "Press to call", Disconnected: "Press to call", Incoming: "Press to answer, hold to decline",
  Connecting: "Press to cancel", Ringing: "Press to cancel", EarlyMedia: "Press to cancel", InLobby: "Press to cancel",
  Disconnecting: "Hanging up",
};

/** What a press on the call button does now: written below it, and its name for those who hear the page. */
function showKeys(call) {
  const hint = lost() ? "Not connected" : HINTS[call.state ?? "None"] ?? "Press to hang up";
  setText($("keys-hint"), hint);
  $("call-key").setAttribute("aria-label", `Call button of the device. ${hint}.`);
  $("mute-key").setAttribute("aria-label", !inCall(call.state) || lost() ? "Mute button of the device"
    : `Mute button of the device. Press to ${call.isMuted ? "unmute" : "mute"}.`);
  $("call-key").classList.toggle("live", inCall(call.state) && !lost());
}

/** What the other side does not send. */
function showMarks(call) {
  const talking = ["Connected", "LocalHold", "RemoteHold"].includes(call.state) && !lost();
  const other = talking ? (live.get("roster").participants ?? []).find(({ state }) => ["Connected", "Hold"].includes(state)) : null;
  const party = capital(partyName(call.callerInfo));
  $("peer-muted").hidden = !other?.isMuted;
  setText($("peer-muted"), `${party} is muted`);
  $("peer-no-video").hidden = !other || !call.callerInfo?.uri?.startsWith("operator:") || (other.videoStreams ?? []).every(({ isAvailable }) => isAvailable !== false);
  setText($("peer-no-video"), `${party} sends no picture`);
}

function showNow() {
  const call = live.get("call");
  const [heading, text] = headline();
  const [words, tone] = lost() ? ["Not known", ""] : call.state === "RemoteHold"
    ? [`Held by ${partyName(call.callerInfo)}`, "warn"] : callWords(call.state);
  setText($("now-title"), heading);
  setText($("now-text"), text);
  const since = epoch(call.connectedAt ?? call.since);
  const timed = ["Connected", "LocalHold", "RemoteHold"].includes(call.state) && since && !lost();
  setText($("call-pill"), timed ? `${words} ${duration(Date.now() / 1000 - since)}` : words);
  setTone($("call-pill"), tone);
  $("nobody").hidden = live.connection !== "open" || inCall(call.state) || Boolean(onDuty(live).length);
  setTone($("nobody"), hasDiagnostic(live, "nobodyOnDuty") ? "warn" : "");
  document.title = inCall(call.state) || lost() ? `${heading} · ${$("device-name").textContent}` : $("device-name").textContent;
  showKeys(call);
  showMarks(call);
}

const title = (name) => capital(name).replaceAll("_", " ");

function showContacts() {
  const rows = [];
  for (const [name, row] of ioPart(live, "relays")) {
    const closed = Boolean(row.closed ?? row.value);
    rows.push(el("div", { class: "switch" }, el("span", {}, el("b", { text: `${title(name)} relay` })),
      el("span", { class: "tag", "data-tone": closed ? "ok" : "", text: closed ? "Switched on" : "At rest" })));
  }
  for (const [name, row] of ioPart(live, "inputs")) {
    const closed = Boolean(row.closed ?? row.value);
    const shown = el("span", {}, el("b", { text: `${title(name)} contact` }),
      el("small", { class: "small muted-text", text: closed ? "Closed" : "Open" }));
    if (!live.session?.simulation) {
      rows.push(el("div", { class: "switch" }, shown));
      continue;
    }
    const toggle = el("button", { class: "switch", type: "button", role: "switch", "aria-checked": String(closed) },
      shown, el("span", { class: "knob", "aria-hidden": "true" }));
    toggle.addEventListener("click", () =>
      command("sim.input", { input: name, closed: !closed }).catch((error) => toast(error.message, "bad")));
    rows.push(toggle);
  }
  const held = document.activeElement?.closest?.("#contacts .switch");
  const index = held ? [...$("contacts").children].indexOf(held) : -1;
  replaceRows($("contacts"), rows, () => el("p", { class: "empty", text: "This device has none." }));
  if (index >= 0 && !held.isConnected) $("contacts").children[index]?.focus();
  const door = ioPart(live, "relays").find(([name]) => name === "door") ?? ioPart(live, "relays")[0];
  const open = Boolean(door && (door[1].closed ?? door[1].value));
  $("door-state").dataset.open = String(open);
  setIcon($("door-state").firstElementChild, open ? "door-open" : "door");
  setText($("door-words"), open ? "Door unlocked" : "Door locked");
}

function showLamps() {
  const lamps = lost() ? ioPart(live, "lamps").map(([name]) => [name, { lit: false }]) : ioPart(live, "lamps");
  for (const [name, row] of lamps) showLamp(name, row);
  setText($("lamp-words"), lost() ? "" : `Lamps: ${lamps.map(([name, row]) => `${name} ${lampWords(row)}`).join(", ")}.`);
}

function showAll() {
  showConnection(live);
  showFacts(live);
  const simulated = Boolean(live.session?.simulation);
  document.body.classList.toggle("real", live.session !== null && !simulated);
  $("panel").hidden = !simulated;
  $("lend-card").hidden = !simulated;
  setText($("device-sub"), live.session === null ? "Device page" : simulated ? "Simulated device" : "Device page");
  showNow();
  showDiagnostics(live, { without: $("nobody").hidden ? "" : "nobodyOnDuty" });
  showCalls(live);
  showContacts();
  showLamps();
}

const refresh = soon(showAll);
live.addEventListener("change", refresh);
live.addEventListener("connection", refresh);
setInterval(refresh, 1000);

// --- screen, loudspeaker, lending ---------------------------------------------------------------------------------

let shown = "";
stream.addEventListener("screen", ({ detail }) => {
  const next = URL.createObjectURL(detail);
  const image = $("screen");
  image.onload = () => {
    URL.revokeObjectURL(shown);
    shown = next;
  };
  image.src = next;
  image.hidden = false;
  $("screen-off").hidden = true;
});
stream.addEventListener("level", ({ detail }) => $("grille").style.setProperty("--level", String(Math.min(1, detail * 2))));
stream.addEventListener("change", ({ detail }) => {
  $("listen").classList.toggle("on", stream.listening);
  $("listen").lastElementChild.textContent = stream.listening ? "Stop listening" : "Listen";
  setIcon($("listen").firstElementChild, stream.listening ? "speaker" : "speaker-off");
  $("lend").setAttribute("aria-checked", String(stream.lending));
  setText($("lend-text"), detail || (stream.lending ? "The device sees and hears you now."
    : "The device sees and hears you in place of its test picture and speech."));
});

const SOUND_WORDS = "This browser does not play the loudspeaker: open the page over 127.0.0.1 or https.";
$("listen").addEventListener("click", () => stream.setListening(!stream.listening).catch(() => toast(SOUND_WORDS, "bad")));

const REFUSED = {
  NotAllowedError: "The browser refused camera and microphone. Allow them in its address bar, then try again.",
  NotFoundError: "This computer has no camera or no microphone.",
  NotReadableError: "Another program holds the camera or the microphone.",
};
$("lend").addEventListener("click", async () => {
  if (stream.lending) {
    stream.stopLending();
  } else if (!window.isSecureContext) {
    toast("Browsers give camera and microphone only to 127.0.0.1 and https addresses.", "bad");
  } else {
    await stream.startLending().catch((error) => toast(REFUSED[error.name] ?? String(error), "bad"));
  }
});

live.addEventListener("connection", () => {
  if (live.session?.simulation && !stream.socket) stream.connect();
});
setIcon($("listen").firstElementChild, "speaker-off");
live.start();
