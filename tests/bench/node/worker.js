"use strict";

// A worker of @socket.io/pm2.

const { createServer } = require("http");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/cluster-adapter");
const { setupWorker } = require("@socket.io/sticky");
const application = require("./application.js");

const notFound = (request, response) => response.writeHead(404).end();

const io = new Server(createServer(notFound));
io.adapter(createAdapter());
setupWorker(io);
application(io);

console.log("worker ready");
