"use strict";
// Socket.IO clients driven by JSON lines: commands on stdin, what happens on stdout.
// Bytes travel as {"$bytes": "<base64>"}. Every event that wants an answer gets
// {from: <client>, got: <arguments>}; of an event whose name begins with "silent" the
// first argument is a list of clients that do not answer. With recovery an event without an
// answer has its offset as another argument, which is reported apart.
// The argument of the command line is the package that the client is in.

const readline = require("node:readline");

// A package of the directory in which this was started.
const load = (name) => require(require.resolve(name, { paths: [process.cwd()] }));
const { Manager } = load(process.argv[2] || "socket.io-client");

const clients = new Map(); // name -> {manager, sockets: namespace -> Socket}

function pack(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    return { $bytes: Buffer.from(value).toString("base64") };
  }
  if (Array.isArray(value)) return value.map(pack);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, pack(item)]));
  }
  return value;
}

function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value && typeof value === "object") {
    if ("$bytes" in value) return Buffer.from(value.$bytes, "base64");
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
  }
  return value;
}

function report(client, type, fields) {
  process.stdout.write(JSON.stringify({ client, type, ...fields }) + "\n");
}

function transportOf(manager) {
  return manager.engine && manager.engine.transport ? manager.engine.transport.name : "";
}

const commands = {
  connect({ client, url, namespaces, options, auth }) {
    if (options.parser) options.parser = load(options.parser);
    const manager = new Manager(url, options);
    const sockets = new Map();
    clients.set(client, { manager, sockets });
    manager.on("open", () => {
      manager.engine.on("upgrade", (transport) =>
        report(client, "transport", { name: transport.name }),
      );
      report(client, "transport", { name: transportOf(manager) });
    });
    for (const namespace of namespaces) {
      const socket = manager.socket(namespace, { auth });
      sockets.set(namespace, socket);
      socket.on("connect", () =>
        report(client, "connect", { namespace, sid: socket.id, recovered: Boolean(socket.recovered) }),
      );
      socket.on("disconnect", (reason) => report(client, "disconnect", { namespace, reason }));
      socket.on("connect_error", (error) =>
        report(client, "connect_error", { namespace, message: error.message }),
      );
      socket.onAny((event, ...args) => {
        const answer = typeof args.at(-1) === "function" ? args.pop() : null;
        const offset = socket._pid && !answer ? args.pop() : null;
        report(client, "event", { namespace, event, args: pack(args), offset });
        const silent = event.startsWith("silent") && args[0].includes(client);
        if (answer && !silent) answer({ from: client, got: args });
      });
      socket.connect();
    }
  },

  emit({ client, namespace, event, args, id }) {
    const socket = clients.get(client).sockets.get(namespace);
    const values = unpack(args);
    if (id !== undefined) {
      values.push((...answer) => report(client, "ack", { id, args: pack(answer) }));
    }
    socket.emit(event, ...values);
  },

  // Any text as a message of Engine.IO.
  write({ client, text }) {
    clients.get(client).manager.engine.write(text);
  },

  // End the process without a word to anybody; the one that was started may be a parent of it.
  die() {
    process.kill(process.pid, "SIGKILL");
  },

  // As the documentation of recovery has it, to try it.
  drop({ client }) {
    clients.get(client).manager.engine.close();
  },

  close({ client }) {
    for (const socket of clients.get(client).sockets.values()) socket.disconnect();
    clients.delete(client);
    report(client, "closed", {});
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
lines.on("close", () => process.exit(0));
