// One client of centrifuge-js: deeds come in, a JSON array a line; their results and all events go out.
const readline = require("node:readline");
const { Centrifuge } = require("centrifuge");
const liveClient = require("./live_client.js");
const Socket = require("./socket.js");

const tell = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const act = liveClient(Centrifuge, tell, { websocket: Socket });

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const [number, name, options] = JSON.parse(line);
  tell({ done: number, ...(await act(name, options)) });
}).on("close", () => process.exit(0));
