// centrifuge-js as tests use it, in Node and in a browser alike: `act` does something, and all that happens
// afterwards goes to `tell`.
function liveClient(Centrifuge, tell, defaults = {}) {
  const subscriptions = new Map();
  let client;

  const events = [
    "connecting", "connected", "disconnected", "error", "message", "publication", "join", "leave",
    "subscribing", "subscribed", "unsubscribed",
  ];

  function watch(emitter, of) {
    for (const name of events) {
      emitter.on(name, (context) => tell({ event: name, of, ...JSON.parse(JSON.stringify(context)) }));
    }
  }

  /** The tokens that are given, one after the other; the last one stays. */
  function tokensOf(list, of) {
    const left = [...list];
    return async () => {
      tell({ event: "token", of });
      return left.length > 1 ? left.shift() : left[0];
    };
  }

  const deeds = {
    connect({ url, tokens, ...options }) {
      if (tokens) options.getToken = tokensOf(tokens, "");
      client = new Centrifuge(url, { minReconnectDelay: 20, maxReconnectDelay: 200, ...defaults, ...options });
      watch(client, "");
      client.connect();
    },
    disconnect() {
      client.disconnect();
    },
    subscribe({ channel, tokens, ...options }) {
      if (tokens) options.getToken = tokensOf(tokens, channel);
      const subscription = client.newSubscription(channel, { minResubscribeDelay: 20, ...options });
      subscriptions.set(channel, subscription);
      watch(subscription, channel);
      subscription.subscribe();
    },
    unsubscribe({ channel }) {
      subscriptions.get(channel).unsubscribe();
    },
    publish({ channel, data }) {
      return client.publish(channel, data);
    },
    history({ channel, ...options }) {
      return client.history(channel, options);
    },
    presence({ channel }) {
      return client.presence(channel);
    },
    presenceStats({ channel }) {
      return client.presenceStats(channel);
    },
    rpc({ method, data }) {
      return client.rpc(method, data);
    },
  };

  /** Do it: {value} or {refused}, the error's code. */
  return async function act(name, options) {
    try {
      return { value: (await deeds[name](options)) ?? null };
    } catch (error) {
      if (error.code === undefined) throw error;
      return { refused: error.code };
    }
  };
}

if (typeof module !== "undefined") module.exports = liveClient;
