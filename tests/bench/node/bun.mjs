// socket.io on Bun's own server: bun bun.mjs PORT.

import { Server as Engine } from "@socket.io/bun-engine";
import { Server } from "socket.io";
import application from "./application.js";

const engine = new Engine({ path: "/socket.io/" });
const io = new Server();
io.bind(engine);
application(io);

export default { hostname: "127.0.0.1", port: Number(process.argv[2]), ...engine.handler() };
