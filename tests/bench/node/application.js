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
    socket.on("join", (room, answer) => {
      socket.join(room);
      answer(room);
    });
    socket.on("emit_to", (room, times, payload) => {
      for (let n = 0; n < times; n++) {
        io.to(room).emit("news", payload);
      }
    });
  });
};
