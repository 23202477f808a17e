"use strict";

// socket.io in one process, nothing in front: node bare.js PORT.

const { createServer } = require("http");
const { Server } = require("socket.io");
const application = require("./application.js");

const server = createServer((request, response) => response.writeHead(404).end());
application(new Server(server));
server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
