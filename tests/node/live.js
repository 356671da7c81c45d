// One client of centrifuge-js: deeds come in, a JSON array a line; their results and all events go out.
const readline = require("node:readline");
const { Centrifuge } = require("centrifuge");
const liveClient = require("./live_client.js");

// Node 20 tells of a connection that is refused by `error` alone; browsers and later Nodes by `close`, too.
class Socket extends WebSocket {
  constructor(...options) {
    super(...options);
    let isClosed = false;
    this.addEventListener("close", () => (isClosed = true));
    this.addEventListener("error", () => setTimeout(() => isClosed || this.onclose?.({ code: 1006, reason: "" }), 10));
  }
}

const tell = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const act = liveClient(Centrifuge, tell, { websocket: Socket });

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const [number, name, options] = JSON.parse(line);
  tell({ done: number, ...(await act(name, options)) });
}).on("close", () => process.exit(0));
