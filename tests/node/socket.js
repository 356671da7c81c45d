// Node 20 tells of a connection that is refused by `error` alone; browsers and later Nodes by `close`, too.
class Socket extends WebSocket {
  constructor(...options) {
    super(...options);
    let isClosed = false;
    this.addEventListener("close", () => (isClosed = true));
    this.addEventListener("error", () => setTimeout(() => isClosed || this.onclose?.({ code: 1006, reason: "" }), 10));
  }
}

module.exports = Socket;
