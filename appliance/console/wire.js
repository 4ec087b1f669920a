// The appliance's HTTP interface as the pages use it: commands, the live state, the session.

/** A command that was refused or failed; `answer` is the appliance's answer, null when it could not be reached. */
export class CommandError extends Error {
  constructor(message, answer = null) {
    super(message);
    this.answer = answer;
  }
}

const TTL_S = 5;
let clockOffsetS = 0; // our clock against the appliance's, from every stream's first message

/** Give one command; resolves with its answer. A challenge (an appliance without a set clock) is answered once. */
export async function command(verb, args = {}, { wait = 0 } = {}) {
  const body = { id: randomId(), ts: Date.now() / 1000 + clockOffsetS, ttl_s: TTL_S, args };
  let answer = await post(verb, body, wait);
  if (answer.subCode === "challenge" && answer.data?.nonce) {
    answer = await post(verb, { ...body, nonce: answer.data.nonce }, wait); // the same id: the nonce was made for it
  }
  if (answer.result === "done" || answer.result === "accepted") return answer;
  throw new CommandError(answer.message || `${answer.code}/${answer.subCode}`, answer);
}

async function post(verb, body, wait) {
  try {
    const response = await fetch(`/v1/cmd/${verb}${wait ? `?wait=${wait}` : ""}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return await response.json();
  } catch {
    throw new CommandError("The appliance cannot be reached.");
  }
}

// Not crypto.randomUUID: that exists in secure contexts only, and the page must be able to speak outside one.
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The appliance's state, live. Events: "change" (detail: document name), "event" (detail: CloudEvent), "connection".
 * `connection` is "connecting", "open", "lost" or "expired" (the session is gone: a fresh address is needed).
 */
export class Live extends EventTarget {
  constructor() {
    super();
    this.connection = "connecting";
    this.documents = {};
    this.session = null;
    this.words = { diagnostics: {}, reasons: {} };
    this.source = null;
    this.retry = 0;
  }

  get(name) {
    return this.documents[name] ?? {};
  }

  async start() {
    if (!(await this.refreshSession())) return;
    this.open();
  }

  /** Who we are; false when there is no session or no appliance. */
  async refreshSession() {
    try {
      const response = await fetch("/v1/session");
      if (response.status === 401) {
        this.move("expired");
        return false;
      }
      this.session = await response.json();
      this.words = this.session.words;
      return true;
    } catch {
      this.move("lost");
      this.again();
      return false;
    }
  }

  open() {
    this.source?.close();
    const source = new EventSource("/v1/events");
    this.source = source;
    source.addEventListener("hello", (message) => {
      const hello = JSON.parse(message.data);
      if (hello.time) clockOffsetS = hello.time - Date.now() / 1000;
      this.retry = 0;
      this.move("open");
    });
    source.addEventListener("state", (message) => {
      const { name, document } = JSON.parse(message.data);
      this.documents[name] = document;
      this.tell("change", name);
    });
    source.addEventListener("event", (message) => this.tell("event", JSON.parse(message.data)));
    source.addEventListener("cut", (message) => {
      if (JSON.parse(message.data).reason === "signedOut") {
        source.close();
        this.move("expired");
      }
    });
    source.addEventListener("error", () => {
      if (this.connection === "expired") return;
      this.move("lost");
      source.close();
      this.again();
    });
  }

  /** Try again: 0.5, 1, 2, 4, at most 5 seconds apart, without end. */
  again() {
    const seconds = Math.min(5, 0.5 * 2 ** this.retry++) * (0.8 + 0.4 * Math.random());
    setTimeout(() => this.start(), seconds * 1000);
  }

  move(connection) {
    if (this.connection === connection) return;
    this.connection = connection;
    this.tell("connection", connection);
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
