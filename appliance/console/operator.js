// The operator page: duty, ringing, the call and its controls, the device beside it. Calls are peer.js's.

import { fillIcons, icon, setIcon } from "/console/icons.js";
import { Peer } from "/console/peer.js";
import { Meter, Sounds } from "/console/ring.js";
import {
  $, callWords, capital, duration, el, epoch, hasDiagnostic, inCall, ioPart, partyName, peerName, reasonWords, replaceRows,
  setText, setTone, showCalls, showConnection, showDiagnostics, showFacts, soon, toast,
} from "/console/view.js";
import { command, Live } from "/console/wire.js";

const DOOR_S = 3;

const live = new Live();
const peer = new Peer(`/v1/peer?page=${pageId()}`);
const sounds = new Sounds();
const microphoneMeter = new Meter();
const remoteMeter = new Meter();
const page = { trouble: null, warning: null, ended: null, going: false, localStream: null, remoteStream: null,
  callId: "", view: "" };

fillIcons();

/** Tells this tab from another of the same browser; the same after a reload. */
function pageId() {
  let id = sessionStorage.getItem("edgecall-page");
  if (!id) {
    id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("edgecall-page", id);
  }
  return id;
}

const deviceName = () => live.get("device").name || live.session?.device?.name || "the device";

// --- duty -----------------------------------------------------------------------------------------------------------

const TROUBLE = {
  insecure: ["This address is not secure enough for camera and microphone",
    "Browsers give them only to https addresses and to 127.0.0.1. Open the page with the address that “edgecall address” prints."],
  NotAllowedError: ["The browser refused camera and microphone",
    "Allow both for this page in the address bar, then try again."],
  NotFoundError: ["No camera or no microphone was found",
    "Plug one in, then try again."],
  NotReadableError: ["Camera or microphone is in use",
    "Another program holds it. End that program, then try again."],
};

function environmentTrouble() {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) return TROUBLE.insecure;
  if (!window.RTCPeerConnection) return ["This browser cannot make calls", "Use a current Chromium, Chrome, Edge, Firefox or Safari."];
  return null;
}

/** What will not work although duty began: no H.264 here, or no network path that a browser would take. */
async function environmentWarning() {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs ?? [];
  if (codecs.length && !codecs.some(({ mimeType }) => mimeType.toLowerCase() === "video/h264")) {
    return ["This browser has no H.264", "Calls have sound only. Chrome, Edge, Firefox, Safari and most Chromium builds have it."];
  }
  if (!(await hasCandidate())) {
    return ["This computer has no network interface", "Browsers send sound and picture only over a real interface, even to the same computer. Connect a network, or bring an interface up, and go on duty again."];
  }
  return null;
}

async function hasCandidate() {
  const probe = new RTCPeerConnection();
  try {
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => resolve(false), 1500);
      probe.onicecandidate = ({ candidate }) => {
        if (candidate?.candidate || candidate === null) {
          clearTimeout(timer);
          resolve(Boolean(candidate?.candidate));
        }
      };
      probe.createDataChannel("probe");
      probe.createOffer().then((offer) => probe.setLocalDescription(offer)).catch(reject);
    });
  } finally {
    probe.close();
  }
}

async function goOnDuty() {
  page.trouble = environmentTrouble();
  if (page.trouble) return show();
  page.going = true;
  show();
  try {
    await sounds.unlock();
    await peer.goOnDuty(live.session?.displayName);
    page.trouble = null;
    page.ended = null;
  } catch (error) {
    page.trouble = TROUBLE[error.name] ?? ["Going on duty failed", error.message || String(error)];
  }
  page.going = false;
  show();
  await warn();
}

/** Look again at what does not work although duty began. */
async function warn() {
  page.warning = peer.state.duty ? await environmentWarning().catch(() => null) : null;
  show();
}

/** Duty began without a device: say which, why, and what to do. */
function deviceWarning() {
  const without = peer.state.devices?.without ?? {};
  if (!peer.state.duty || (!without.audio && !without.video)) return null;
  const [title, advice] = TROUBLE[without.audio ?? without.video] ?? ["Camera or microphone does not work", ""];
  const lost = without.audio && without.video ? "You are on duty, but the other side will neither hear nor see you."
    : without.audio ? "You are on duty, but the other side will not hear you." : "The other side will hear but not see you.";
  return [title, `${lost} ${advice}`];
}

$("duty-on").addEventListener("click", goOnDuty);
$("duty-off").addEventListener("click", () => {
  peer.goOffDuty();
  $("duty-on").focus();
});
$("devices-again").addEventListener("click", async () => {
  peer.goOffDuty(); // lets go of what was half taken
  await goOnDuty();
});

// After a reload duty goes on without a click, and a call too, but browsers play and measure no sound before one.
for (const kind of ["pointerdown", "keydown"]) {
  document.addEventListener(kind, async () => {
    if (page.remoteStream && $("remote").paused) playRemote();
    const begun = !sounds.context;
    await sounds.unlock();
    if (begun) {
      microphoneMeter.watch(sounds.context, page.localStream);
      remoteMeter.watch(sounds.context, page.remoteStream);
    }
    show();
  }, { once: true, capture: true });
}

// --- the call -------------------------------------------------------------------------------------------------------

const attempt = (action) => async () => {
  try {
    await action();
  } catch (error) {
    toast(TROUBLE[error.name]?.[0] ?? error.message, "bad");
  }
};

const call = () => peer.state.call;
const answer = attempt(() => peer.answer(call().callId));
const decline = attempt(() => peer.reject(call().callId));

$("answer").addEventListener("click", answer);
$("decline").addEventListener("click", decline);
$("hangup").addEventListener("click", attempt(() => peer.hangup()));
$("mute").addEventListener("click", attempt(() => peer.setMuted(!call().muted)));
$("camera").addEventListener("click", attempt(() => peer.setVideo(!call().video)));
$("hold").addEventListener("click", attempt(() => peer.setHold(!call().held)));
$("call-device").addEventListener("click", attempt(async () => {
  if (!peer.state.duty) await goOnDuty();
  if (peer.state.duty) await peer.call();
}));
$("door").addEventListener("click", attempt(async () => {
  await command("io.set", { relay: doorRelay(), seconds: DOOR_S });
  toast(`The door is unlocked for ${DOOR_S} seconds.`);
}));

const doorRelay = () => {
  const names = ioPart(live, "relays").map(([name]) => name);
  return names.includes("door") ? "door" : names[0];
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const key = event.key.toLowerCase();
  const state = call()?.state;
  if (state === "Incoming" && key === "a") answer();
  else if (state === "Incoming" && key === "d") decline();
  else if (inCall(state) && state !== "Incoming" && key === "m") $("mute").click();
  else return;
  event.preventDefault();
});

// --- what is shown --------------------------------------------------------------------------------------------------

function showNotice(id, words) {
  $(id).hidden = !words;
  if (!words) return;
  setText($(`${id}-title`), words[0]);
  setText($(`${id}-text`), words[1] ?? "");
}

function focusOn(id) {
  if (document.activeElement === document.body || $("main").contains(document.activeElement)) $(id).focus();
}

function showStage() {
  const { duty } = peer.state;
  const now = call();
  const running = Boolean(now) && inCall(now.state);
  const incoming = running && now.state === "Incoming";
  const view = incoming ? "view-incoming" : running ? "view-call" : duty ? "view-idle" : "view-off";
  const changed = page.view !== view;
  for (const id of ["view-off", "view-idle", "view-incoming", "view-call"]) $(id).hidden = id !== view;
  $("duty-off").hidden = !duty || running;
  sounds.ring(incoming);
  track(now);
  if (incoming) showIncoming(now);
  else if (running) showCall(now);
  else showLobby(duty);
  if (changed && incoming) focusOn("answer");
  if (changed && view === "view-call") focusOn("mute");
  // Not to a button: a second press of the key that hung up would call.
  if (changed && /call|incoming/.test(page.view) && /idle|off/.test(view)) focusOn(duty ? "idle-title" : "off-title");
  page.view = view;
  document.title = `${incoming ? "● Incoming call" : running ? stateWords(now.state) : duty ? "On duty" : "Operator"} · ${deviceName()}`;
}

/** How a call ended, told to the person who sits here. */
const OPERATOR_DID = {
  "0/local": () => "You ended the call.",
  "0/remote": () => "The device ended the call.",
  "603/declined": (_, out) => (out ? "The device declined." : "You declined."),
  "487/cancelled": (_, out) => (out ? "You gave up before the device answered." : "The device gave up before you answered."),
  "487/answeredElsewhere": () => "Somebody else answered.",
  "487/noAnswer": (_, out) => (out ? "Nobody at the device answered in time." : "You did not answer in time."),
  "486/busy": (_, out) => (out ? "The device is in a call." : "You were in another call."),
  "480/unreachable": () => "The device is not online.",
  "480/doNotDisturb": () => "The device refuses calls: do not disturb is on.",
};

function endedWords(now) {
  const reason = now?.reason;
  const { message, advice, failed } = reasonWords(live, reason, OPERATOR_DID, "", now?.direction === "Outgoing");
  const device = live.get("device");
  const own = {
    doNotDisturb: device.doNotDisturb ? "Turn off “Do not disturb” under Settings on this page, then call again."
      : device.doNotDisturbNow ? "A schedule in the settings of the device turned it on."
        : "The switch “Do not disturb” under Settings on this page, or a schedule of the device, turned it on.",
    unreachable: "See that the device is switched on and has a network.",
  }[reason?.subCode];
  return [message || "The call has ended.", own ?? advice, failed];
}

/** Words of the state of the operator's own call. */
const stateWords = (state) => ({ LocalHold: "You hold the call", RemoteHold: "Held by the device" }[state] ?? callWords(state)[0]);

/** Keep the reason of the call that just ended, for the idle view. */
function track(now) {
  if (now && inCall(now.state)) {
    page.callId = now.callId;
    page.ended = null;
  } else if (page.callId) {
    page.ended = endedWords(now);
    page.callId = "";
    sounds.ended();
  }
}

function showLobby(duty) {
  showNotice("trouble", page.trouble);
  showNotice("ended", page.ended);
  setTone($("ended"), page.ended?.[2] ? "bad" : "");
  const silent = duty && sounds.context?.state !== "running"
    ? ["The ring cannot be heard yet", "Browsers play sound only after a click. Click anywhere on this page."] : null;
  const without = deviceWarning();
  showNotice("warning", without ?? silent ?? page.warning);
  $("devices-again").hidden = !without;
  const lost = duty && peer.state.connection !== "open";
  setTone($("idle-badge"), lost ? "" : "ok");
  setText($("idle-title"), lost ? "Connection lost" : "On duty");
  setText($("idle-text"), lost ? "Trying to reach the appliance. You are on duty again as soon as it is back."
    : `Calls from ${deviceName()} ring here. Keep this tab open; it rings in the background too.`);
  $("duty-on").disabled = page.going || live.connection !== "open";
  setText($("duty-on"), page.going ? "Asking for camera and microphone" : page.trouble ? "Try again" : "Go on duty");
  setText($("call-device-text"), `Call ${deviceName()}`);
  $("call-device").disabled = lost;
}

function showIncoming(now) {
  const { displayName, identity } = now.peer ?? {};
  setText($("incoming-name"), displayName || identity || deviceName());
  const image = $("visitor");
  if (now.picture && image.getAttribute("src") !== now.picture) image.src = now.picture;
  image.hidden = !now.picture;
  $("no-picture").hidden = Boolean(now.picture);
}

/** A button that toggles says what a press does next; it has no pressed state besides, which would negate its words. */
function press(id, on, name, words) {
  const button = $(id);
  button.classList.toggle("on", on);
  setIcon(button.querySelector("svg"), name);
  setText(button.querySelector("span"), words);
}

function showCall(now) {
  const talking = ["Connected", "LocalHold", "RemoteHold", "Reconnecting"].includes(now.state);
  setText($("call-name"), now.peer?.displayName || now.peer?.identity || deviceName());
  setText($("call-state"), now.state === "Connected" ? "" : stateWords(now.state));
  const since = epoch(now.since);
  setText($("call-timer"), talking && since ? duration(Date.now() / 1000 - since) : "");
  press("mute", now.muted, now.muted ? "mic-off" : "mic", now.muted ? "Unmute" : "Mute");
  press("camera", !now.video, now.video ? "video" : "video-off", now.video ? "Stop video" : "Start video");
  press("hold", now.held, now.held ? "play" : "pause", now.held ? "Resume" : "Hold");
  for (const id of ["mute", "camera", "hold"]) $(id).disabled = !talking;
  $("door").hidden = !doorRelay();
  setText($("hangup").querySelector("span"), talking ? "Hang up" : "Cancel");
  $("chip-peer-muted").hidden = !now.peerMuted;
  $("chip-held").hidden = !now.held && !now.peerHeld;
  setText($("chip-held-text"), now.held ? "On hold" : "Held by the device");
  $("veil").hidden = now.state !== "Reconnecting" && !(talking && peer.state.connection !== "open");
  setText($("veil-title"), now.state === "Reconnecting" ? "Reconnecting" : "Connection to the appliance lost");
  const [blind, mute, deaf] = talking ? deviceTrouble() : [];
  const chip = [now.peerVideo !== false && blind, !now.peerMuted && mute, deaf].filter(Boolean).join(" ");
  $("chip-device").hidden = !chip;
  setText($("chip-device-text"), `${capital(deviceName())}: ${chip}`);
  const picture = Boolean(page.remoteStream?.getVideoTracks().length) && now.peerVideo !== false && talking && !now.held
    && !blind; // what stands still looks as if it were now
  $("remote").hidden = !picture;
  $("no-video").hidden = picture;
  setText($("no-video-text"), !talking ? stateWords(now.state) : now.held ? "You hold the call"
    : now.peerHeld ? "The device holds the call" : now.peerVideo !== false && blind ? blind : "Sound only");
  setIcon($("no-video").querySelector("svg"), !talking ? "phone" : now.held || now.peerHeld ? "pause" : "video-off");
  $("self-off").hidden = now.video && Boolean(page.localStream?.getVideoTracks().length);
}

/** Words and tone of the device's call, beside which the operator's own stands. */
function deviceCall() {
  const { state, callerInfo, isHandRaised } = live.get("call");
  const [words, tone] = callWords(state);
  if (live.connection !== "open") return ["Not known", ""];
  if (isHandRaised && state !== "Disconnected") return ["The device asks for attention", "warn"];
  const party = partyName(callerInfo);
  return [{
    Connecting: "The device calls", Ringing: "The device calls", EarlyMedia: "The device calls",
    Incoming: `${capital(party)} calls the device`, Connected: "The device is in a call", LocalHold: "Held by the device",
    RemoteHold: `Held by ${party}`,
  }[state] ?? words, tone];
}

/** Diagnostics of the device without which the operator sees, hears or is heard no more; in the order of weight. */
const BLIND = ["noCameraDevicesEnumerated", "cameraUnplugged", "cameraStoppedUnexpectedly", "cameraFreeze",
  "cameraStartFailed", "cameraStartTimedOut", "cameraPermissionDenied", "cameraFormatUnsupported"];
const MUTE = ["noMicrophoneDevicesEnumerated", "microphoneNotFunctioning", "microphoneBusy", "microphonePermissionDenied",
  "microphoneFormatUnsupported", "microphoneMuteUnexpectedly", "microphoneNotMuteButSilent"];
const DEAF = ["noSpeakerDevicesEnumerated", "speakerNotFunctioning", "speakerBusy", "speakerPermissionDenied",
  "speakerFormatUnsupported", "speakerMuted", "speakerVolumeIsZero"];

/** What is wrong at the other end, in the words of the vocabulary: with the camera, the microphone, the loudspeaker. */
const deviceTrouble = () => [BLIND, MUTE, DEAF].map((names) => {
  const name = names.find((one) => hasDiagnostic(live, one));
  return name ? (live.words.diagnostics[name]?.message ?? name) : "";
});

const MEMBER_STATES = { Hold: "Holds the call", InLobby: "In the lobby" };

function showDevice() {
  const [words, tone] = deviceCall();
  setText($("call-pill"), words);
  setTone($("call-pill"), tone);
  const members = live.get("roster").participants ?? [];
  replaceRows($("roster"), members.map((member) => el("li", {}, icon(member.kind === "device" ? "speaker" : "person"),
    el("div", { class: "grow" }, el("b", { text: peerName(member) || "Unknown" })),
    member.isHandRaised ? el("span", { class: "tag", "data-tone": "warn", text: "Asks for attention" }) : null,
    member.isMuted ? el("span", { class: "tag", "data-tone": "warn", text: "Muted" }) : null,
    el("span", { class: "tag", "data-tone": member.state === "Connected" ? "ok" : "", text: MEMBER_STATES[member.state] ?? member.state }))),
  () => el("li", { class: "empty", text: "Nobody is in a call." }));
  $("dnd").setAttribute("aria-checked", String(Boolean(live.get("device").doNotDisturb)));
  const entry = operatorEntry();
  $("auto-answer").hidden = live.session?.scope !== "admin" || !live.get("device").addressBook;
  $("auto-answer").setAttribute("aria-checked", String(Boolean(entry.autoAnswer)));
  const { volume } = live.get("devices");
  if (typeof volume === "number" && document.activeElement !== $("device-volume")) showVolume("device-volume", volume);
  showChoices();
}

const KINDS = { microphone: "Microphone of the device", speaker: "Loudspeaker in use", camera: "Camera of the device" };

/** Which device is used, of each kind of which there are several. */
function showChoices() {
  const { devices = [], choice = {} } = live.get("devices");
  const kinds = Object.keys(KINDS).filter((kind) => choice[kind] && devices.filter((row) => row.kind === kind).length > 1);
  const box = $("choices");
  const words = JSON.stringify(kinds.map((kind) => [kind, choice[kind], devices.filter((row) => row.kind === kind)]));
  if (box.dataset.words === words || box.contains(document.activeElement)) return;
  box.dataset.words = words;
  box.replaceChildren(...kinds.flatMap((kind) => {
    const rows = devices.filter((row) => row.kind === kind);
    const { selected, used, why } = choice[kind];
    const name = (id) => rows.find((row) => row.id === id)?.name ?? "none";
    const list = el("select", { id: `choice-${kind}`, title: why },
      el("option", { value: "auto", text: `By itself (now: ${name(used)})` }),
      ...rows.map((row) => el("option", { value: row.id, text: row.present ? row.name : `${row.name} (not there)` })));
    list.value = selected;
    list.addEventListener("change", attempt(() => {
      list.blur(); // what comes of it is shown at once
      return command("devices.select", { kind, id: list.value });
    }));
    return [el("label", { class: "small muted-text", for: list.id, text: KINDS[kind] }), list];
  }));
}

function showVolume(id, percent) {
  $(id).value = String(percent);
  setText($(`${id}-out`), `${percent} %`);
}

function show() {
  showConnection(live);
  showFacts(live);
  setText($("device-sub"), ["Operator page", live.session?.displayName].filter((word) => word && word !== "Operator").join(" · "));
  showStage();
  showDevice();
  showDiagnostics(live, { advices: { nobodyOnDuty: "Press “Go on duty” on this page." } });
  showCalls(live);
}

// --- settings -------------------------------------------------------------------------------------------------------

const OPERATORS = "operator:*";

/** The address-book entry of the operators decides whether the device answers them by itself. */
function operatorEntry() {
  const entries = live.get("device").addressBook ?? [];
  return entries.find(({ uris = [] }) => uris.includes(OPERATORS)) ?? { name: "Operators", uris: [OPERATORS] };
}

$("auto-answer").addEventListener("click", attempt(async () => {
  const entry = { ...operatorEntry() };
  entry.autoAnswer = !entry.autoAnswer;
  const known = ["name", "uris", "ringSeconds", "autoAnswer", "allowed", "members", "strategy", "fallback"];
  const args = Object.fromEntries(known.map((name) => [name, entry[name]])
    .filter(([, value]) => value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && !value.length)));
  await command("book.put", args);
}));

$("dnd").addEventListener("click", attempt(() =>
  command("dnd.set", { on: $("dnd").getAttribute("aria-checked") !== "true" })));

$("volume").addEventListener("input", () => {
  showVolume("volume", Number($("volume").value));
  $("remote").volume = Number($("volume").value) / 100;
});
$("device-volume").addEventListener("input", () => showVolume("device-volume", Number($("device-volume").value)));
$("device-volume").addEventListener("change", attempt(() =>
  command("devices.volume", { percent: Number($("device-volume").value) })));

// --- streams and levels ---------------------------------------------------------------------------------------------

peer.addEventListener("localstream", ({ detail }) => {
  page.localStream = detail;
  $("self").srcObject = detail;
  microphoneMeter.watch(sounds.context, detail);
  show();
});
peer.addEventListener("remotestream", ({ detail }) => {
  page.remoteStream = detail;
  $("remote").srcObject = detail;
  remoteMeter.watch(sounds.context, detail);
  if (detail) playRemote();
  show();
});

function playRemote() {
  $("remote").play().catch((error) => {
    if (error.name === "NotAllowedError") toast("The browser blocked the sound. Click anywhere on the page.", "bad");
  });
}

function levels() {
  const now = call();
  if (now && inCall(now.state)) {
    $("meter-mic").style.setProperty("--level", String(now.muted || now.held ? 0 : microphoneMeter.level()));
    $("meter-remote").style.setProperty("--level", String(remoteMeter.level()));
  }
  requestAnimationFrame(levels);
}

const refresh = soon(show);
peer.addEventListener("notice", ({ detail }) => toast(detail.message || `${detail.code}/${detail.subCode}`, "bad"));
peer.addEventListener("change", show); // at once: browsers slow timers down in background tabs, and a ring cannot wait
live.addEventListener("change", refresh);
live.addEventListener("connection", refresh);
setInterval(refresh, 1000);
page.trouble = environmentTrouble();
live.start();
peer.connect();
requestAnimationFrame(levels);
show();
