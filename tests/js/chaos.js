"use strict";
// The clients of tests/bench/chaos.py: node chaos.js URL COUNT FILE
// What each of them receives is written to FILE as lines of JSON, until stdin ends.

const fs = require("node:fs");
const { io } = require("socket.io-client");

const [url, count, file] = process.argv.slice(2);
const TRANSPORTS = [["websocket"], ["polling", "websocket"], ["polling"]];
const out = fs.createWriteStream(file);

function write(kind, fields) {
  out.write(JSON.stringify({ kind, at: Date.now() / 1000, ...fields }) + "\n");
}

for (let index = 0; index < Number(count); index++) {
  const transports = TRANSPORTS[index % 3];
  const socket = io(url, {
    transports,
    forceNew: true,
    reconnectionDelay: 100,
    reconnectionDelayMax: 1000,
  });
  let sid = "";
  socket.on("connect", () => {
    sid = socket.id;
    socket.emit("ready", index, () => write("begin", { index, sid, room: index % 5, transports }));
  });
  socket.on("disconnect", (reason) => write("end", { sid, reason }));
  socket.on("n", (stream, number, total, size, filler) =>
    write("got", { sid, stream, number, total, whole: filler.length === size }),
  );
  socket.on("ask", (number, answer) => answer(number));
}

process.stdin.on("end", () => out.end(() => process.exit(0))).resume();
