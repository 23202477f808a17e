"use strict";
// JavaScript clients of tests/bench/takeover.py and recovery.py:
// node takeover.js URL FIRST COUNT CHURN RATE
//
// COUNT clients stay, and have the keys FIRST and so on; CHURN others come by polling, upgrade, and
// leave, again and again. Lines of stdin are commands: "go", "stop", "count", "report". Each is
// answered with a line of JSON.

const readline = require("node:readline");
const { io } = require("socket.io-client");

const [url, ...numbers] = process.argv.slice(2);
const [first, count, churn, rate] = numbers.map(Number);
const TRANSPORTS = [["websocket"], ["polling", "websocket"], ["polling"]];
const ROOMS = 20;
const MOST_FAULTS = 20;
const EVENTS_OF_A_VISIT = 5;

const now = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as all processes have it

const delays = new Map(); // bucket -> count; see takeover_oracle.py
let worst = 0;
let heard = 0;

function count_delay(seconds) {
  worst = Math.max(worst, seconds);
  const bucket = Math.floor(Math.log(Math.max(seconds, 1e-4) / 1e-4) / Math.log(1.02));
  delays.set(bucket, (delays.get(bucket) || 0) + 1);
}

// What a client hears: of each stream the numbers follow each other, and of each emitter the totals
// grow. A client that does not stay may begin anywhere.
class Hearing {
  constructor(begins) {
    this.begins = begins;
    this.last = {};
    this.totals = {};
    this.faults = { lost: 0, doubled: 0, disordered: 0 };
    this.examples = [];
    this.missing = new Set();
  }

  // It is connected anew: what was emitted in between is not for it.
  begin_anew() {
    this.begins = false;
    this.last = {};
    this.totals = {};
    this.missing.clear();
  }

  fault(kind, text, times = 1) {
    this.faults[kind] += times;
    const at = new Date().toISOString();
    if (this.examples.length < MOST_FAULTS) this.examples.push(`${kind}: ${text} at ${at}`);
  }

  hear(emitter, total, target, number, sent) {
    heard++;
    count_delay(now() - sent);
    const stream = `${emitter} ${target}`;
    const last = this.last[stream] ?? (this.begins ? 0 : number - 1);
    if (number > last + 1) {
      for (let n = last + 1; n < number; n++) this.missing.add(`${stream} ${n}`);
      this.fault("lost", `${stream} ${last + 1} to ${number - 1}`, number - last - 1);
    } else if (number <= last) {
      const late = this.missing.delete(`${stream} ${number}`);
      if (late) this.faults.lost--;
      this.fault(late ? "disordered" : "doubled", `${stream} ${number} after ${last}`);
    } else if (total <= (this.totals[emitter] ?? 0)) {
      this.fault("disordered", `${stream} ${number} (${total}) after ${this.totals[emitter]}`);
    }
    this.last[stream] = Math.max(last, number);
    this.totals[emitter] = Math.max(total, this.totals[emitter] ?? 0);
  }
}

class Client {
  constructor(key, transports, begins) {
    this.key = key;
    this.hearing = new Hearing(begins);
    this.connects = 0;
    this.recovered = 0;
    this.anew = []; // seconds without a connection before each new session
    this.lost_at = 0;
    this.ends = [];
    this.sent = 0;
    this.acked = 0;
    this.leaving = false;
    this.socket = io(url, {
      transports,
      forceNew: true,
      query: { key },
      auth: { key: String(key), room: Number(String(key).replace(/\D/g, "")) % ROOMS },
      reconnectionDelay: 100,
      reconnectionDelayMax: 1000,
    });
    this.socket.on("connect", () => {
      this.connects++;
      if (this.socket.recovered) this.recovered++;
      else if (this.connects > 1) {
        this.hearing.begin_anew();
        this.anew.push(now() - this.lost_at);
      }
      this.sid = this.socket.id;
      this.onconnect?.();
    });
    this.socket.on("disconnect", (reason, details) => {
      this.lost_at = now();
      if (!this.leaving) this.end(`${reason} ${details?.description ?? ""}`);
    });
    this.socket.on("connect_error", (error) => this.end(`connect_error: ${error.message}`));
    this.socket.on("n", (...args) => this.hearing.hear(...args));
    this.socket.on("ask", (number, answer) => answer(number));
  }

  end(text) {
    this.ends.push(`${text} at ${new Date().toISOString()}`);
  }

  send() {
    const number = ++this.sent;
    this.socket.emit("up", String(this.key), number, now(), (answer) => {
      this.acked++;
      if (answer !== number) this.end(`answer ${answer} to ${number}`);
      this.onack?.();
    });
  }

  leave() {
    this.leaving = true;
    this.socket.disconnect();
  }

  report() {
    const { key, sid, connects, recovered, anew, ends, sent, acked, hearing } = this;
    const { last, faults, examples } = hearing;
    const counts = { connects, recovered, sent, acked };
    return { key: String(key), sid, ...counts, anew, ends, last, faults, examples };
  }
}

const clients = [];
const visits = []; // of those that have left, with faults alone
let visited = 0;
let going = true;
let sending = null;

function visit(index, turn) {
  if (!going) return;
  const client = new Client(`churn-${index}-${turn}`, ["polling", "websocket"], false);
  clients.push(client);
  let upgraded = false;
  const done = () => {
    if (!upgraded || client.acked < EVENTS_OF_A_VISIT || client.leaving) return;
    client.leave();
    clients.splice(clients.indexOf(client), 1);
    visited++;
    const report = client.report();
    if (report.ends.length || report.examples.length || report.connects !== 1) visits.push(report);
    setImmediate(visit, index, turn + 1);
  };
  client.onack = done;
  client.onconnect = () => {
    client.socket.io.engine.once("upgrade", () => {
      upgraded = true;
      done();
    });
    for (let n = 0; n < EVENTS_OF_A_VISIT; n++) client.send();
  };
}

function send_at_rate(staying) {
  const began = now();
  let sent = 0;
  sending = setInterval(() => {
    for (; sent < (now() - began) * rate; sent++) staying[sent % staying.length].send();
  }, 10);
}

function say(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}

const commands = {
  go() {
    send_at_rate([...clients]);
    for (let index = 0; index < churn; index++) visit(index, 0);
    say({});
  },
  stop() {
    going = false;
    clearInterval(sending);
    say({});
  },
  count() {
    say({ heard, acked: clients.reduce((sum, c) => sum + c.acked, 0) });
  },
  report() {
    say({ clients: clients.map((c) => c.report()), visits, visited, delays: [...delays], worst });
  },
};

for (let index = first; index < first + count; index++) {
  const client = new Client(index, TRANSPORTS[index % 3], true);
  client.onconnect = () => {
    if (clients.every((c) => c.sid)) say({ sids: clients.map((c) => c.sid) });
    client.onconnect = null;
  };
  clients.push(client);
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => commands[line]());
lines.on("close", () => process.exit(0));
