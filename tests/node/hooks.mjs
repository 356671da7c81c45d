// Svix's SDK and the reference library of Standard Webhooks: node hooks.mjs SERVER_URL TOKEN
// It makes an application, an endpoint of its own, and messages; what came of them is printed as JSON.
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// `import` does not heed NODE_PATH, `require` does.
const { resolve } = createRequire(import.meta.url);
const load = (name) => import(pathToFileURL(resolve(name)));
const { ApiException, Svix, Webhook, WebhookVerificationError } = await load("svix");
const standard = await load("standardwebhooks");

const [serverUrl, token] = process.argv.slice(2);
const svix = new Svix(token, { serverUrl });
const found = {};

// ── a receiver ──
const waiting = [];
const received = [];
const receiver = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    response.end("thanks");
    received.push({ headers: request.headers, body: Buffer.concat(parts).toString() });
    waiting.shift()?.();
  });
}).listen(0, "127.0.0.1");
await once(receiver, "listening");
const call = async (number) => {
  while (received.length < number) await new Promise((done) => waiting.push(done));
  return received[number - 1];
};

const fails = (work) => {
  try {
    work();
  } catch (error) {
    return error.constructor.name;
  }
  return "nothing";
};
const refused = async (work) => {
  try {
    await work();
  } catch (error) {
    if (error instanceof ApiException) return [error.code, error.body];
    throw error;
  }
  return "nothing";
};

// ── an application, an endpoint, a message ──
const app = await svix.application.create({ name: "Acme" });
const url = `http://127.0.0.1:${receiver.address().port}/in`;
const endpoint = await svix.endpoint.create(app.id, { url, eventTypes: ["invoice.paid"], channels: ["eu"] });
const { key } = await svix.endpoint.getSecret(app.id, endpoint.id);
const payload = { id: "in_1", text: "ümlaut ✓" };
const message = await svix.message.create(app.id, { eventType: "invoice.paid", payload, channels: ["eu"] });
const first = await call(1);
found.svix = fails(() => new Webhook(key).verify(first.body, first.headers));
found.standard = new standard.Webhook(key).verify(first.body, first.headers);
found.hasId = first.headers["webhook-id"] === message.id;
found.changed = fails(() => new Webhook(key).verify(`${first.body} `, first.headers));
found.verificationError = WebhookVerificationError.name;

// ── the log ──
let attempts = [];
while (attempts.length === 0) {
  attempts = (await svix.messageAttempt.listByMsg(app.id, message.id, { withContent: true })).data;
}
const [attempt] = attempts;
found.attempt = [attempt.statusText, attempt.responseStatusCode, attempt.response, attempt.url === url];
found.attemptedAt = attempt.timestamp instanceof Date;

// ── a rotated secret ──
await svix.endpoint.rotateSecret(app.id, endpoint.id, {});
const next = (await svix.endpoint.getSecret(app.id, endpoint.id)).key;
await svix.messageAttempt.resend(app.id, message.id, endpoint.id);
const second = await call(2);
found.rotated = [key, next].map((one) => new standard.Webhook(one).verify(second.body, second.headers).id);
found.differ = key !== next;

// ── pages ──
for (let number = 0; number < 4; number++) await svix.message.create(app.id, { eventType: "other", payload });
const sizes = [];
let page = { iterator: undefined, done: false };
while (!page.done) {
  page = await svix.message.list(app.id, { limit: 2, iterator: page.iterator });
  sizes.push(page.data.length);
}
found.pages = sizes;

// ── errors ──
found.notFound = await refused(() => svix.endpoint.get(app.id, "ep_none"));
found.invalid = await refused(() => svix.message.create(app.id, { eventType: "a b", payload }));
found.wrongToken = await refused(() => new Svix("wrong", { serverUrl }).application.list());

await svix.application.delete(app.id);
process.stdout.write(JSON.stringify(found));
receiver.close();
receiver.closeAllConnections();
