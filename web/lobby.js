// The script of the demo page, to be read from top to bottom: what it knows,
// how it stays connected, what an event changes, how we speak, how all of it is
// drawn, and how we come and go.
//
// The list of who is here is exact without polling: GET /users says which event
// it was taken after (the header Last-Event-ID), and the stream goes on from
// there. Only after a gap in the stream, or a longer break, it is asked for again.

const $ = (id) => document.getElementById(id);

const maxLines = 500; // of the conversation are kept on the page
const maxNames = 200; // are listed at once; the others can be found by the box

// --- What the page knows -----------------------------------------------------

let me = ""; // our name while we are here
let lastId = ""; // where the stream goes on: after the last event heard, or after the first list
let people = new Set(); // the names of who is here
let peopleChanged = false; // since they were drawn

let list = null; // the place {epoch, seq} of the list that people began as; null while it is asked for
let early = []; // arrivals and departures that came meanwhile

// An id is EPOCH-SEQ: which run of the server, and which of its events.
function place(id) {
  const dash = id.lastIndexOf("-");
  return { epoch: id.slice(0, dash), seq: Number(id.slice(dash + 1)) };
}

// --- How it stays connected --------------------------------------------------

let source = null; // the stream; our name is among the people while it is open
let failures = 0; // since the stream was last open
let absent = 0; // for how many seconds, since then, we have been missing from the people
let current = 0; // changes when answers to earlier questions are no longer wanted
let timer = 0; // to the next try

// connect asks who is here and opens the stream from there, or from the last
// event heard, so that nothing said is missed.
async function connect() {
  disconnect();
  const words = failures > 0 ? "Reconnecting" : "Connecting";
  show(words.toLowerCase(), words);
  if (!(await askForPeople())) return;
  lastId ||= `${list.epoch}-${list.seq}`;
  source = new EventSource(streamPath());
  source.addEventListener("open", () => {
    failures = absent = 0;
    show("live", "Live");
    notify("");
  });
  source.addEventListener("message", hear);
  source.addEventListener("gap", (event) => {
    lastId = event.lastEventId;
    write({ kind: "gap", text: "Something was missed here: the server could not tell us everything that happened." });
    askForPeople();
  });
  source.addEventListener("error", lost);
}

function disconnect() {
  current++;
  clearTimeout(timer);
  source?.close();
  source = null;
}

function streamPath() {
  return `/chat/${encodeURIComponent(me)}?lastEventId=${lastId}`;
}

// askForPeople returns whether they are known now. Where not, it was of no use
// any more, or another try is under way.
async function askForPeople() {
  const asked = ++current;
  list = null;
  early = [];
  try {
    const answer = await ask("/users", { headers: { Accept: "application/json" } });
    const { users } = await answer.json().catch(cutOff);
    if (asked !== current) return false;
    people = new Set(users);
    peopleChanged = true;
    list = place(answer.headers.get("Last-Event-ID"));
    early.forEach(apply);
    redraw();
    return true;
  } catch (error) {
    if (asked === current) tryLater(error);
    return false;
  }
}

// lost is called when the stream has ended. The browser opens it again by
// itself, after the time that the server asked for and from the last id that it
// got, the opening block's included. Where it gives up (an answer that is no
// stream, such as 503) or has failed once, we go on in our own way.
async function lost() {
  if (source.readyState === EventSource.CONNECTING && failures === 0) {
    failures = 1;
    show("reconnecting", "Reconnecting");
    return;
  }
  const refused = source.readyState === EventSource.CLOSED;
  disconnect();
  const asked = current;
  let reason = new Error("The connection was lost.");
  if (refused) {
    // An EventSource doesn't tell what the answer was, so we ask for it.
    await ask(streamPath()).then((answer) => answer.body.cancel()).catch((error) => (reason = error));
  }
  if (asked === current) tryLater(reason);
}

// tryLater connects again: later each time, and not in step with all the others
// who lost the server at the same moment.
function tryLater(error) {
  disconnect();
  if (error.status === 400) {
    leave(error.message); // the name is none, and trying again won't help
    return;
  }
  failures++;
  const seconds = (error.retryAfter || 0) + Math.min(2 ** failures, 30) * (0.5 + Math.random() / 2);
  const at = Date.now() + seconds * 1000;
  show(error.gone ? "gone" : "reconnecting", error.gone ? "Server gone, retry" : "Reconnecting");
  notify(error.message, "Try now");
  (function countDown() {
    const left = Math.ceil((at - Date.now()) / 1000);
    if (left <= 0) {
      connect();
      return;
    }
    $("state-when").textContent = `in ${left} s`;
    timer = setTimeout(countDown, 200);
  })();
}

// ask makes a request, and throws an error in words where it does not succeed.
async function ask(path, options) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000), ...options }).catch(cutOff);
  if (answer.ok) return answer;
  const inWords = answer.headers.get("Content-Type")?.startsWith("text/plain");
  throw Object.assign(new Error(inWords ? await answer.text().catch(cutOff) : `The server answered ${answer.status}.`), {
    status: answer.status,
    retryAfter: Number(answer.headers.get("Retry-After")),
  });
}

// cutOff says in our words, not the browser's, that no answer came, or not all of it.
function cutOff(error) {
  const words = error.name === "TimeoutError" ? "The server does not answer." : "The server can't be reached.";
  throw Object.assign(new Error(words), { gone: true });
}

// --- What an event changes ---------------------------------------------------

const presence = /^User (\S+) (connected to|disconnected from) the chat\.$/;

// hear takes an event in. No name has a space, so that the sentences can't be
// mistaken for each other.
function hear({ data, lastEventId }) {
  lastId = lastEventId;
  thisSecond();
  rates[rates.length - 1]++;
  const [, name, verb] = data.match(presence) ?? [];
  if (name) {
    const change = { id: lastEventId, name, here: verb === "connected to" };
    if (list) apply(change);
    else early.push(change);
    write({ kind: change.here ? "came" : "left", name });
  } else {
    const space = data.indexOf(" ");
    write({ kind: "said", name: data.slice(0, space - 1), text: data.slice(space + 1) });
  }
}

// apply makes an arrival or departure count, unless the list has it already.
function apply({ id, name, here }) {
  const { epoch, seq } = place(id);
  if (epoch !== list.epoch || seq <= list.seq) return;
  if (here) people.add(name);
  else people.delete(name);
  peopleChanged = true;
}

// write adds a line to the conversation.
function write(line) {
  fresh.push(line);
  if (fresh.length > 2 * maxLines) fresh.splice(0, maxLines); // nobody looks at the end now
  if (line.name !== me) sinceSummary.push(line);
  redraw();
}

// --- How we speak ------------------------------------------------------------

let sending = false;

$("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = $("text");
  const text = box.value;
  if (sending || !text.trim()) return;
  sending = true;
  try {
    await ask(`/chat/${encodeURIComponent(me)}`, { method: "POST", body: text });
    if (box.value.startsWith(text)) box.value = box.value.slice(text.length); // the rest was typed meanwhile
    $("send-error").textContent = "";
    drawLines(true);
  } catch (error) {
    $("send-error").textContent = `Not sent. ${error.message}`;
  }
  sending = false;
});

$("text").addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Safari's way to say it
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  $("send").requestSubmit();
});

// --- How it is drawn ---------------------------------------------------------

let fresh = []; // lines that are not on the page yet
let frame = 0; // the next one to draw in, if asked for
let drawn = 0; // when we last drew

// redraw draws in the next frame, however often it is called before. While much
// happens, not every frame is drawn in: the eye sees no more.
function redraw() {
  frame ||= requestAnimationFrame((now) => {
    frame = 0;
    if (now - drawn < 50) {
      redraw();
      return;
    }
    drawn = now;
    drawLines();
    if (peopleChanged) drawPeople();
  });
}

// element makes one with text in it, which never becomes markup.
function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// nameTag isolates the name, so that one written from right to left turns
// nothing beside it round, and gives it a colour of its own.
function nameTag(name) {
  const tag = element("bdi", "name", name);
  let hue = 0;
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  tag.style.setProperty("--hue", hue);
  return tag;
}

function lineRow({ kind, name, text }) {
  const row = element("li", name === me ? `${kind} mine` : kind, "");
  if (kind === "gap") row.append(text);
  if (kind === "came") row.append(nameTag(name), " came in");
  if (kind === "left") row.append(nameTag(name), " left");
  if (kind === "said") {
    const said = element("p", "text", text);
    said.dir = "auto";
    row.append(nameTag(name), said);
  }
  return row;
}

// The log is laid out from its end (column-reverse): there scrollTop is 0, and
// the browser stays there by itself. While the reader is elsewhere, new lines
// wait, so that nothing moves under the eyes.
function drawLines(toEnd = false) {
  const log = $("log");
  const waited = !$("newer").hidden && !toEnd;
  if (toEnd) log.scrollTop = 0;
  if (fresh.length > 0 && log.scrollTop > -40) {
    const rows = fresh.slice(-maxLines).map(lineRow);
    fresh = [];
    $("lines").append(...rows);
    while ($("lines").childElementCount > maxLines) $("lines").firstElementChild.remove();
    if (waited) rows[0].scrollIntoView({ block: "end" }); // read on where you were
    else log.scrollTop = 0;
  }
  $("newer").hidden = fresh.length === 0;
  $("newer").textContent = `${fresh.length > maxLines ? `${maxLines}+` : fresh.length} new ↓`;
}

$("log").addEventListener("scroll", () => fresh.length > 0 && redraw());
$("newer").addEventListener("click", () => {
  drawLines(true);
  $("log").focus();
});

// drawPeople makes the rows those of the first names. Both are sorted, so one
// walk along them finds what to put in and what to take out.
function drawPeople() {
  peopleChanged = false;
  const wanted = $("find").value.trim().toLowerCase();
  const names = [...people].filter((name) => name.toLowerCase().includes(wanted)).sort();
  let row = $("people").firstElementChild;
  const takeOut = () => {
    const next = row.nextElementSibling;
    row.remove();
    row = next;
  };
  for (const name of names.slice(0, maxNames)) {
    while (row && row.textContent < name) takeOut();
    if (row?.textContent === name) {
      row = row.nextElementSibling;
    } else {
      const added = element("li", name === me ? "mine" : "", "");
      added.append(nameTag(name));
      $("people").insertBefore(added, row);
    }
  }
  while (row) takeOut();
  const others = names.length - maxNames;
  $("others").textContent = others > 0 ? `and ${others.toLocaleString("en")} more` : "";
  $("count").textContent = people.size.toLocaleString("en");
  $("find-label").hidden = people.size <= 20 && !wanted;
}

$("find").addEventListener("input", drawPeople);

// rates counts the events of each of the last 60 seconds and of this one.
const rates = Array(61).fill(0);
let second = 0;

// thisSecond makes the last of the rates that of the current second. (A hidden
// tab's timers run late, so that it can be several on.)
function thisSecond() {
  const now = Math.floor(performance.now() / 1000);
  for (second = Math.max(second, now - rates.length); second < now; second++) {
    rates.shift();
    rates.push(0);
  }
}

function drawRates() {
  thisSecond();
  const whole = rates.slice(0, -1);
  const peak = Math.max(...whole);
  const points = whole.map((rate, x) => `${x},${19 - (18 * rate) / Math.max(peak, 4)}`).join(" ");
  $("line").setAttribute("points", points);
  $("area").setAttribute("points", `0,20 ${points} 59,20`);
  $("rate").textContent = whole.at(-1).toLocaleString("en");
  $("peak").textContent = `last minute, peak ${peak.toLocaleString("en")}`;
}

// show tells how the connection is: live, connecting, reconnecting or gone.
function show(state, words) {
  $("state").dataset.state = state;
  $("state-words").textContent = words;
  $("state-when").textContent = "";
}

// notify puts a sentence above the conversation, with a way out of it.
function notify(words, button = "") {
  if ($("notice-words").textContent === words) return; // and not said aloud again
  $("notice-words").textContent = words;
  $("again").textContent = button;
  $("notice").hidden = !words;
}

$("again").addEventListener("click", connect);

// What others did is told to screen readers now and then, in few words.
let sinceSummary = [];

function summarise() {
  const [first] = sinceSummary;
  const kinds = [["said", "Messages"], ["came", "Came in"], ["left", "Left"], ["gap", "Gaps"]];
  const counts = kinds.map(([kind, word]) => [word, sinceSummary.filter((line) => line.kind === kind).length]);
  $("summary").textContent =
    sinceSummary.length === 1 && first.kind === "said"
      ? `${first.name}: ${first.text}`
      : counts.filter(([, n]) => n > 0).map(([word, n]) => `${word}: ${n}.`).join(" ");
  sinceSummary = [];
}

// --- How we come and go ------------------------------------------------------

// A name as the server takes it: no spaces, nothing invisible, no part of a path.
const goodName = /^(?!\.{1,2}$)[^\s\p{C}/]{1,64}$/u;

// The tab keeps the name for its next load, where the browser lets it.
const memory = {
  get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* asked for again then */ } },
};

function join(name) {
  me = name;
  memory.set("name", name);
  memory.set("here", "yes");
  drawPlace();
  connect();
}

// leave ends our stream. The others hear of it when the server is sure that we
// don't come back, as after a reload.
function leave(words = "") {
  disconnect();
  me = lastId = "";
  failures = 0;
  people = new Set();
  list = null;
  fresh = [];
  sinceSummary = [];
  for (const id of ["lines", "people"]) $(id).replaceChildren();
  $("name-error").textContent = words;
  $("send-error").textContent = "";
  notify("");
  memory.set("here", "");
  drawPlace();
}

function drawPlace() {
  document.title = me ? `${me} · Lobby` : "Lobby";
  $("my-name").textContent = me;
  for (const id of ["room", "state", "you"]) $(id).hidden = !me;
  $("join").hidden = me !== "";
  $(me ? "text" : "name").focus();
}

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (goodName.test(name)) {
    $("name-error").textContent = "";
    join(name);
  } else {
    $("name-error").textContent = "A name is 1 to 64 visible characters, with no space and no slash among them.";
  }
});

$("leave").addEventListener("click", () => leave());

// On every load, and when the browser brings the page back as it was left.
addEventListener("pageshow", () => {
  $("curl").lastElementChild.textContent = `curl -N ${location.origin}/chat`;
  $("name").value = memory.get("name") ?? "";
  if (memory.get("here")) join(memory.get("name"));
  else drawPlace();
});

// On another network the old connection may be dead without a word.
addEventListener("online", () => me && connect());

setInterval(() => {
  drawRates();
  if ($("state").dataset.state !== "live" || !list) return;
  // DELETE /users/NAME can have removed us while our stream goes on. (Right after
  // it opened, our arrival may just be on its way.)
  absent = people.has(me) ? 0 : absent + 1;
  notify(absent > 1 ? "You are no longer in the chat." : "", "Join again");
}, 1000);

setInterval(summarise, 5000);
drawRates();
