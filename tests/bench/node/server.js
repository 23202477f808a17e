"use strict";

// The application of bench_app.py, as a worker of @socket.io/pm2.

const { createServer } = require("http");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/cluster-adapter");
const { setupWorker } = require("@socket.io/sticky");

const notFound = (request, response) => response.writeHead(404).end();

const io = new Server(createServer(notFound));
io.adapter(createAdapter());
setupWorker(io);

io.on("connection", (socket) => {
  socket.on("echo", (data, answer) => answer(data));
  socket.on("worker", (answer) => answer(process.pid));
  socket.on("broadcast", (times, payload) => {
    for (let n = 0; n < times; n++) {
      io.emit("news", payload);
    }
  });
});

console.log("worker ready");
