// Reads the stream at the given address with the given npm package until the process ends, and
// prints each event that the package dispatches as a line of JSON.
const [name, url] = process.argv.slice(2);
const print = (id, name, data) => console.log(JSON.stringify({ id, name, data }));

const readers = {
  async eventsource() {
    const { EventSource } = await import("eventsource");
    listen(new EventSource(url), EventSource.CLOSED);
  },
  async "launchdarkly-eventsource"() {
    const { EventSource } = (await import("launchdarkly-eventsource")).default;
    listen(new EventSource(url), EventSource.CLOSED);
  },
  async "eventsource-client"() {
    const { createEventSource } = await import("eventsource-client");
    createEventSource({ url, onMessage: (e) => print(e.id, e.event ?? "message", e.data) });
  },
};

// For packages that offer the interface of a browser's EventSource.
function listen(source, closed) {
  for (const name of ["message", "gap"]) {
    source.addEventListener(name, (e) => print(e.lastEventId, e.type, e.data));
  }
  source.addEventListener("error", (e) => {
    if (source.readyState === closed) {
      console.error(e.message);
      process.exit(1);
    }
  });
}

await readers[name]();
