// A WHEP server over a Janus, for tests: node server.js JANUS-URL PORT
//
// Commands are JSON lines on stdin, each answered by one on stdout: {"create": {…}} an endpoint (see createEndpoint of
// janus-whep-server), {"subscribers": true} how many there are. The first line on stdout says that it listens.
import { createInterface } from "node:readline";
import express from "express";
import { JanusWhepServer } from "janus-whep-server";

const [address, port] = process.argv.slice(2);
const app = express();
const server = new JanusWhepServer({ janus: { address }, rest: { app, basePath: "/whep" }, debug: "err" });
await server.start();
app.listen(Number(port), "127.0.0.1", () => console.log("{}"));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.create) server.createEndpoint(command.create);
  console.log(JSON.stringify({ subscribers: server.listSubscribers().length }));
}
process.exit(0);
