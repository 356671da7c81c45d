// A gRPC client on another HTTP/2 stack than ours: node client.js ADDRESS WHAT; prints JSON.
// Messages are bytes, as in tests/support/servicers.py.
const grpc = require("@grpc/grpc-js");
const health = require("grpc-health-check");

const [address, what] = process.argv.slice(2);
const SERVICE = "test.Echo";
const bytes = (value) => value;
// gRPC's C core answers CANCELLED where a process stops before it has looked at the call.
const config = {
  methodConfig: [
    {
      name: [{ service: SERVICE }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
};
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify(config),
  "grpc.max_receive_message_length": -1,
  // A connection that waits to be accepted when its process stops is reset. The next one must be tried while
  // calls still retry: gRPC's own pause is 1 s.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1000,
});

const unary = (name, text = "", seconds = 30) =>
  new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + seconds * 1000);
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    client.makeUnaryRequest(`/${SERVICE}/${name}`, bytes, bytes, Buffer.from(text), { deadline }, done);
  });

const kinds = {
  unary: async () => String(await unary("Who")),

  stream: async () => {
    const call = client.makeServerStreamRequest(`/${SERVICE}/Count`, bytes, bytes, Buffer.from("1000"));
    const found = [];
    for await (const message of call) found.push(String(message));
    return found;
  },

  big: async () => {
    const call = client.makeBidiStreamRequest(`/${SERVICE}/Echo`, bytes, bytes);
    call.end(Buffer.alloc(10 << 20, "x"));
    let length = 0;
    for await (const message of call) length += message.length;
    return length;
  },

  deadline: () => unary("Sleep", "30", 0.2).then(String, (error) => grpc.status[error.code]),

  fail: () => unary("Fail").then(String, (error) => [grpc.status[error.code], error.details]),

  health: () =>
    new Promise((resolve, reject) => {
      const Health = grpc.makeClientConstructor(health.service);
      const asked = new Health(address, grpc.credentials.createInsecure());
      const deadline = new Date(Date.now() + 30_000);
      asked.check({ service: "" }, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer.status)));
    }),

  many: async () => {
    const answers = await Promise.all(Array.from({ length: 2000 }, () => unary("Who")));
    return answers.length;
  },

  // Calls without end from 8 callers; says "calling" when there are answers, and ends when its input does.
  load: async () => {
    const counts = { OK: 0 };
    let isOver = false;
    process.stdin.resume().on("end", () => (isOver = true));
    const caller = async () => {
      while (!isOver) {
        try {
          await unary("Who");
          if (++counts.OK === 100) console.log("calling");
        } catch (error) {
          counts[grpc.status[error.code]] = (counts[grpc.status[error.code]] ?? 0) + 1;
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, caller));
    return counts;
  },
};

kinds[what]().then(
  (found) => {
    console.log(JSON.stringify(found));
    process.exit(0); // connections would keep it alive
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
