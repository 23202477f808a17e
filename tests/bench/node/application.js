"use strict";

// The application of bench_app.py, for every peer in JavaScript.

module.exports = (io) => {
  io.on("connection", (socket) => {
    socket.on("echo", (data, answer) => answer(data));
    socket.on("worker", (answer) => answer(process.pid));
    socket.on("broadcast", (times, payload) => {
      for (let n = 0; n < times; n++) {
        io.emit("news", payload);
      }
    });
  });
};
