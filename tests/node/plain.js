// Runs a function of docs/live.md: `node plain.js FILE NAME ADDRESS`. Each token is asked for by a line that
// says so, and comes by a line; so do what is sent and the end.
const readline = require("node:readline");
const { readFileSync } = require("node:fs");
const Socket = require("./socket.js");

const [file, name, address] = process.argv.slice(2);
const tell = (event, ...more) => process.stdout.write(JSON.stringify([event, ...more]) + "\n");
const lines = readline.createInterface({ input: process.stdin });
const wanted = [];

const later = (work, milliseconds) => {
  tell("waits", milliseconds);
  return setTimeout(work, milliseconds / 20);
};
const source = `${readFileSync(file, "utf8")}\nreturn ${name};`;
const made = new Function("WebSocket", "setTimeout", source)(Socket, later);
const token = () => new Promise((done, failed) => {
  tell("token");
  wanted.push((text) => (text === "none" ? failed(new Error("no token")) : done(text)));
});
const running = made(address, token, (data) => tell("data", data), (...why) => tell("end", ...why));

lines.on("line", (line) => {
  const [what, text] = JSON.parse(line);
  if (what === "token") wanted.shift()(text);
  else if (what === "send") running.send(text);
  else (running.close ?? running)();
}).on("close", () => process.exit(0));
