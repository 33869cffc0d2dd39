// Prints what a page's listeners would get from the stream at the given
// address, a JSON object a line, until the process is ended.
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
for (const name of ["message", "gap"]) {
  source.addEventListener(name, (e) => console.log(JSON.stringify({ id: e.lastEventId, name: e.type, data: e.data })));
}
source.addEventListener("error", (e) => {
  if (source.readyState === EventSource.CLOSED) {
    console.error(e.message);
    process.exit(1);
  }
});
