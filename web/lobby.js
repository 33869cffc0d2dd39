// The script of the demo page, to be read from top to bottom: what it knows, how it stays
// connected, what an event changes, how we speak, how all of it is drawn, and how we come and go.
//
// The list of who is here is exact without polling: GET /users says which event it was taken after
// (in its header Last-Event-ID), and the stream goes on from there. The page asks for the list
// again only after a gap in the stream or a lost connection.

const $ = (id) => document.getElementById(id);

const maxRows = 500; // rows of the conversation on the page
const maxNames = 200; // names shown in one place; the box above the list finds the others
const maxPast = 100; // events shown from before we came

// --- What the page knows -----------------------------------------------------

let me = ""; // our name while we are here
let lastId = ""; // the id of the last event heard, after which the stream goes on
let cameAfter = ""; // the id of the last event before we came
let people = new Set(); // the names of who is here
let peopleChanged = false; // since they were drawn

let listId = ""; // the id of the last event that the list took into account; "" while we ask for it
let early = []; // arrivals and departures that we heard while we asked

// An id is EPOCH-SEQ: which run of the server, and which of its events.
function parse(id) {
  const dash = id.lastIndexOf("-");
  return { epoch: id.slice(0, dash), seq: Number(id.slice(dash + 1)) };
}

// isUpTo reports whether an event is the other or came before it, in the same run of the server.
function isUpTo(id, otherId) {
  const [event, other] = [parse(id), parse(otherId)];
  return event.epoch === other.epoch && event.seq <= other.seq;
}

// --- How it stays connected --------------------------------------------------

let source = null; // our stream; our name is among the people while it is open
let state = ""; // waiting (for a slot), connecting, live, reconnecting or gone
let failures = 0; // attempts to connect that failed since we were last live
let absent = 0; // seconds for which we have been missing from the people while live
let lastQuestion = 0; // answers to earlier questions than this one are no longer wanted
let retryTimer = 0;

let owed = ""; // the id of an event that must come, because an answer told us of it
let overdueTimer = 0; // runs while we wait for an event, or for the stream to open

// connect asks who is here and opens the stream after the last event heard, so that nothing is
// missed. The first time, it goes back a little further, to show what was said before we came.
async function connect() {
  disconnect();
  const words = lastId ? "Reconnecting" : "Connecting";
  show(words.toLowerCase(), words);
  if (!(await askForPeople())) return;
  const { epoch, seq } = parse(listId);
  if (!lastId) {
    cameAfter = listId;
    lastId = `${epoch}-${Math.max(0, seq - maxPast)}`;
  }
  owe(people.has(me) ? listId : `${epoch}-${seq + 1}`); // our arrival is at least the next one
  source = openStream();
  expectWithin(5);
}

function disconnect() {
  lastQuestion++;
  clearTimeout(retryTimer);
  clearTimeout(overdueTimer);
  overdueTimer = 0;
  source?.close();
  source = null;
}

// reconnect is for when the connection may be dead without a word.
function reconnect() {
  if (me && state !== "waiting") connect();
}

function streamPath() {
  return `/chat/${encodeURIComponent(me)}?lastEventId=${lastId}`;
}

// openStream returns a stream whose events count only while it is ours. A page that comes back
// from WebKit's back/forward cache finds there the streams that it had closed, open again.
function openStream() {
  const opened = new EventSource(streamPath());
  const on = (type, handle) =>
    opened.addEventListener(type, (event) => {
      if (opened === source) handle(event);
      else opened.close();
    });
  on("open", settle);
  on("message", hear);
  on("gap", hearGap);
  on("error", lost);
  return opened;
}

// owe takes note that the stream must bring the event with this id.
function owe(id) {
  owed = isUpTo(id, lastId) ? "" : id;
}

// expectWithin starts the wait for what must come next, unless we wait already.
function expectWithin(seconds) {
  overdueTimer ||= setTimeout(overdue, seconds * 1000);
}

// overdue is called when what had to come did not. A stream that was live is dead, though nobody
// told us. One that never brought anything may still do so.
function overdue() {
  overdueTimer = 0;
  if (state === "live") {
    connect();
    return;
  }
  const words = "The server answers, but its stream does not get through. Probably a proxy or a virus scanner holds it back.";
  notify(words, "Try now");
  overdueTimer = setTimeout(() => tryLater(new Error(words)), 30_000);
}

// cameAsFar takes note that the stream has come as far as the event with this id.
function cameAsFar(id) {
  lastId = id;
  clearTimeout(overdueTimer);
  overdueTimer = 0;
  owe(owed);
  if (state !== "live") settle();
  if (owed) expectWithin(state === "live" ? 3 : 5);
}

// settle makes the page live once the stream is open and has brought what it had to.
function settle() {
  if (owed || source.readyState !== EventSource.OPEN) return;
  clearTimeout(overdueTimer);
  overdueTimer = failures = absent = 0;
  show("live", "Live");
  notify("");
}

// askForPeople returns whether they are known now. If not, the answer was no longer wanted, or
// another attempt is under way.
async function askForPeople() {
  const question = ++lastQuestion;
  listId = "";
  early = [];
  try {
    const answer = await ask("/users", { headers: { Accept: "application/json" } });
    const { users } = await answer.json().catch(cutOff);
    if (question !== lastQuestion) return false;
    people = new Set(users);
    peopleChanged = true;
    listId = answer.headers.get("Last-Event-ID");
    early.forEach(apply);
    redraw();
    return true;
  } catch (error) {
    if (question === lastQuestion) tryLater(error);
    return false;
  }
}

// lost is called when the stream has ended. At first the browser opens it again by itself, after
// the time that the server asked for, and from the last id that it got. If it gives up (when the
// answer is no stream, such as 503) or has failed once, we go on in our own way.
async function lost() {
  if (source.readyState === EventSource.CONNECTING && failures === 0) {
    failures = 1;
    show("reconnecting", "Reconnecting");
    clearTimeout(overdueTimer);
    overdueTimer = 0;
    expectWithin(8); // of which the browser may wait 3 before it asks
    return;
  }
  const refused = source.readyState === EventSource.CLOSED;
  disconnect();
  const question = lastQuestion;
  let reason = new Error("The connection was lost.");
  if (refused) {
    // An EventSource doesn't tell what the answer was, so we ask for it.
    await ask(streamPath()).then((answer) => answer.body.cancel()).catch((error) => (reason = error));
  }
  if (question === lastQuestion) tryLater(reason);
}

// tryLater connects again: later each time, and not in step with all the others who lost the
// server at the same moment.
function tryLater(error) {
  disconnect();
  if (error.status === 400) {
    leave(error.message); // the server does not take the name, and trying again won't help
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
    retryTimer = setTimeout(countDown, 200);
  })();
}

// ask makes a request, and throws an error in words if it does not succeed.
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

// --- How tabs share the connections ------------------------------------------

// Over HTTP/1.1 a browser opens six connections to a host, for all tabs together. A stream keeps
// one. So at most five tabs have a stream, and one connection is left for all that they ask. Each
// of the five slots is a lock that the browser shares among tabs.
const slots = ["slot 1", "slot 2", "slot 3", "slot 4", "slot 5"];
const needsSlot = navigator.locks && !/^h[23]/.test(performance.getEntriesByType("navigation")[0]?.nextHopProtocol);

let giveSlotBack = () => {}; // ends our hold on a slot, or our wait for one
let isFull = false; // the other tabs have all slots, and we wait

// takeSlot waits until we have a slot.
function takeSlot() {
  if (!needsSlot) return Promise.resolve();
  giveSlotBack();
  return new Promise((taken) => {
    const waiting = new AbortController();
    giveSlotBack = () => waiting.abort();
    const take = () => {
      if (waiting.signal.aborted) return; // two were free at once, so this one goes back
      waiting.abort();
      taken();
      return new Promise((free) => (giveSlotBack = free));
    };
    for (const slot of slots) navigator.locks.request(slot, { signal: waiting.signal }, take).catch(() => {});
    navigator.locks.query().then(({ held }) => {
      if (waiting.signal.aborted || !slots.every((slot) => held.some(({ name }) => name === slot))) return;
      isFull = true;
      drawPlace();
    });
  });
}

// --- What an event changes ---------------------------------------------------

const presence = /^User (\S+) (connected to|disconnected from) the chat\.$/;

// hear takes an event in. No name has a space, so the sentences can't be mistaken for each other.
function hear({ data, lastEventId: id }) {
  cameAsFar(id);
  const isNew = !isUpTo(id, listId); // so it happened just now
  if (isNew) {
    thisSecond();
    rates[rates.length - 1]++;
  }
  const line = { time: isNew ? Date.now() : 0, isPast: isUpTo(id, cameAfter) };
  const [, name, verb] = data.match(presence) ?? [];
  if (name) {
    const change = { id, name, isHere: verb === "connected to" };
    if (listId) apply(change);
    else early.push(change);
    write({ ...line, kind: change.isHere ? "came" : "left", name });
  } else {
    const space = data.indexOf(" ");
    const said = { ...line, kind: "said", name: data.slice(0, space - 1), text: data.slice(space + 1) };
    if (said.name === me) cameBack(id, said.text);
    write(said);
  }
  if (id === cameAfter) write({ kind: "now", text: "So far before you came" });
}

// hearGap is called when the server can't tell us all that happened after the last event heard.
function hearGap({ lastEventId: id }) {
  if (id !== cameAfter) {
    write({ kind: "gap", text: "Something was missed here: the server could not tell us everything that happened." });
  }
  if (parse(id).epoch !== parse(owed).epoch) owed = ""; // nothing of that run of the server will come
  outbox = outbox.filter((message) => !message.id || isUpTo(id, message.id));
  outboxChanged = true;
  cameAsFar(id);
  askForPeople();
}

// apply makes an arrival or departure count, unless the list has it already.
function apply({ id, name, isHere }) {
  if (!isUpTo(listId, id) || id === listId) return;
  if (isHere) people.add(name);
  else people.delete(name);
  peopleChanged = true;
}

// write adds a line to the conversation. Arrivals and departures in a row make one item, a crowd.
function write(line) {
  const isPresence = line.kind === "came" || line.kind === "left";
  if (isPresence && latest.lines?.length < maxCrowd) {
    latest.lines.push(line);
    if (fresh.at(-1) !== latest) fresh.push(latest); // to be drawn again
  } else {
    const minute = Math.floor(line.time / 60_000);
    const beginsMinute = line.kind === "said" && minute !== lastMinute;
    const follows = line.kind === "said" && latest.kind === "said" && latest.name === line.name && !beginsMinute;
    if (line.kind === "said") lastMinute = minute;
    latest = isPresence ? { kind: "crowd", lines: [line] } : { ...line, beginsMinute, follows };
    fresh.push(latest);
    if (fresh.length > 2 * maxRows) fresh.splice(0, maxRows); // nobody looks at the end now
  }
  if (line.name !== me && !line.isPast) {
    sinceSummary.push(line);
    if (line.kind === "said" && document.hidden && unread < 100) {
      unread++;
      drawTitle();
    }
  }
  redraw();
}

// --- How we speak ------------------------------------------------------------

const maxBytes = 4096; // of a message, as the server takes it
const maxLines = 32;

let outbox = []; // what we said and the stream has not brought yet, oldest first
let outboxChanged = false; // since it was drawn
let isSending = false;

// A message is waiting, sending, sent (and then has the id of its event) or failed.
$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = messageInBox();
  $("send-error").textContent = problemWithText(text);
  if (!text || problemWithText(text)) return;
  putInBox("");
  outbox.push({ text, state: "waiting" });
  outboxChanged = true;
  drawLines(true);
  sendAll();
});

// sendAll sends what waits, one message after another, so that they stay in order.
async function sendAll() {
  if (isSending) return;
  isSending = true;
  for (let message; (message = outbox.find(({ state }) => state === "waiting")); redraw()) {
    Object.assign(message, { state: "sending", isUnsure: false });
    outboxChanged = true;
    redraw();
    try {
      const answer = await ask(`/chat/${encodeURIComponent(me)}`, { method: "POST", body: message.text });
      sent(message, answer.headers.get("Last-Event-ID"));
    } catch (error) {
      failed(message, error);
    }
    outboxChanged = true;
  }
  isSending = false;
}

// sent is called when the server has taken a message. The stream must bring it within 3 s.
function sent(message, id) {
  Object.assign(message, { state: "sent", id });
  if (isUpTo(id, lastId)) outbox = outbox.filter((other) => other !== message);
  else if (outbox.includes(message)) {
    owe(id);
    expectWithin(3);
  }
}

// failed is called when a message was refused, or when no answer came: then nobody knows whether
// it was said, until the stream brings it or not.
function failed(message, error) {
  Object.assign(message, { state: "failed", reason: error.message, isUnsure: error.gone || error.status === 504 });
  if (!error.gone) return;
  for (const other of outbox) {
    if (other.state === "waiting") Object.assign(other, { state: "failed", reason: error.message });
  }
  if (state === "live") connect();
}

// cameBack takes a message of ours out of the outbox when the stream has brought it, be it before
// the answer, after it, or without one.
function cameBack(id, text) {
  const heard =
    outbox.find((message) => message.id === id) ??
    outbox.find((message) => message.state === "sending" && message.text === text) ??
    outbox.find((message) => message.isUnsure && message.text === text);
  outbox = outbox.filter((message) => message !== heard);
  outboxChanged = true;
}

function messageInBox() {
  return $("text").value.replace(/\r\n?|[\u2028\u2029]/g, "\n").trimEnd();
}

const size = (text) => new TextEncoder().encode(text).length;
const countOf = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// problemWithText says why the server would refuse a text, or "".
function problemWithText(text) {
  const lines = text.split("\n").length;
  const tooMany = size(text) - maxBytes;
  if (tooMany > 0) return `This is ${countOf(tooMany, "byte")} too long for one message.`;
  if (lines > maxLines) return `This has ${lines} lines. A message has at most ${maxLines}.`;
  return /[^\P{Cc}\t\n]/u.test(text) ? "This has a control character in it, which can't be sent." : "";
}

function putInBox(text) {
  $("text").value = text;
  boxChanged();
}

// boxChanged makes what stands around the box true again: how much room is left, once that is
// little, an error that may be cured, and how high the box must be.
function boxChanged() {
  const text = messageInBox();
  const left = maxBytes - size(text);
  $("text-left").textContent = left < maxBytes / 4 ? `${countOf(left, "byte")} left` : "";
  if ($("send-error").textContent) $("send-error").textContent = problemWithText(text);
  if (!CSS.supports("field-sizing", "content")) {
    $("text").style.height = "auto";
    $("text").style.height = `${$("text").scrollHeight + 2}px`; // 2 for its border
  }
}

$("text").addEventListener("input", boxChanged);

$("text").addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Safari's way to say it
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  $("send").requestSubmit();
});

// --- How it is drawn ---------------------------------------------------------

// An item of the conversation is a crowd, something said, a gap, or where now begins.
const maxCrowd = 1000; // arrivals and departures in one item
const maxApart = 3; // of a crowd are shown one by one

let latest = {}; // the last item
let lastMinute = -1; // of the last thing said
let fresh = []; // items that are not on the page yet, or have grown
let frame = 0; // the next one to draw in, if asked for
let drawn = 0; // when we last drew

// redraw draws in the next frame, however often it is called before. While much happens, not every
// frame is drawn in: the eye sees no more.
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
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function buttonFor(words, onClick) {
  const made = element("button", "plain", words);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

// nameTag isolates the name, so that one written from right to left turns nothing beside it round,
// and gives it a colour of its own. The factor, a golden section of all hues, keeps the colours of
// names apart that differ little, such as user1 and user2.
function nameTag(name) {
  const tag = element("bdi", "name", name);
  let hash = 0;
  for (const character of name) hash = Math.imul(hash + character.codePointAt(0), 0x9e3779b1);
  tag.style.setProperty("--hue", (hash >>> 0) / 2 ** 32 * 360);
  return tag;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const dateAndClock = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "medium" });

// drawItem makes the item's row, or makes it anew.
function drawItem(item) {
  const { kind, name, text, time, isPast, beginsMinute, follows } = item;
  item.row ??= element("li", "");
  if (kind === "crowd") {
    drawCrowd(item.row, item.lines);
    return item.row;
  }
  const row = item.row;
  row.className = ["line", kind, name === me && "mine", isPast && "past", follows && "follows"].filter(Boolean).join(" ");
  if (time) row.title = dateAndClock.format(time);
  if (kind !== "said") {
    row.append(text);
    return row;
  }
  row.append(nameTag(name));
  if (time && beginsMinute) row.append(element("time", "", clock.format(time)));
  const said = element("p", "text", text);
  said.dir = "auto";
  row.append(said);
  return row;
}

function drawCrowd(row, lines) {
  const isPast = lines[0].isPast ? " past" : "";
  if (lines.length <= maxApart) {
    row.replaceChildren(
      ...lines.map(({ kind, name, time }) => {
        const line = element("p", `line ${kind}${isPast}`);
        if (time) line.title = dateAndClock.format(time);
        line.append(nameTag(name), kind === "came" ? " came in" : " left");
        return line;
      }),
    );
    return;
  }
  const namesOf = (wanted) => [...new Set(lines.filter(({ kind }) => kind === wanted).map(({ name }) => name))];
  const parts = [["came in", namesOf("came")], ["left", namesOf("left")]].filter(([, names]) => names.length > 0);
  let details = row.querySelector("details");
  if (!details) {
    details = element("details", `line crowd${isPast}`);
    details.append(element("summary", ""));
    details.addEventListener("toggle", () => drawCrowd(row, lines));
    row.replaceChildren(details);
  }
  const [first, second] = parts.map(([verb, names]) => [names.length, verb]);
  details.firstChild.textContent = `${countOf(first[0], "person", "people")} ${first[1]}${second ? `, ${second.join(" ")}` : ""}`;
  while (details.childElementCount > 1) details.lastChild.remove();
  if (!details.open) return;
  for (const [verb, names] of parts) {
    const list = element("p", "", `${verb[0].toUpperCase()}${verb.slice(1)}: `);
    names.slice(0, maxNames).forEach((name, i) => list.append(i > 0 ? ", " : "", nameTag(name)));
    if (names.length > maxNames) list.append(` and ${(names.length - maxNames).toLocaleString("en")} more`);
    details.append(list);
  }
}

// The log is laid out from its end (column-reverse): there scrollTop is 0, and the browser stays
// there by itself. While the reader is elsewhere, new lines wait, so that nothing moves under the
// eyes.
function drawLines(toEnd = false) {
  const log = $("log");
  const waited = !$("newer").hidden && !toEnd;
  if (toEnd) log.scrollTop = 0;
  if (fresh.length > 0 && log.scrollTop > -40) {
    const rows = fresh.slice(-maxRows).map(drawItem);
    fresh = [];
    $("lines").append(...rows);
    while ($("lines").childElementCount > maxRows) $("lines").firstElementChild.remove();
    if (waited) rows[0].scrollIntoView({ block: "end" }); // read on where you were
    else log.scrollTop = 0;
  }
  if (outboxChanged) drawOutbox();
  $("newer").hidden = fresh.length === 0;
  $("newer").textContent = `${fresh.length > maxRows ? `${maxRows}+` : fresh.length} new ↓`;
}

$("log").addEventListener("scroll", () => fresh.length > 0 && redraw());
$("newer").addEventListener("click", () => {
  drawLines(true);
  $("log").focus();
});

function drawOutbox() {
  outboxChanged = false;
  $("outbox").replaceChildren(...outbox.map((message) => {
    const row = element("li", "line said mine unsent");
    const text = element("p", "text", message.text);
    text.dir = "auto";
    const remove = () => {
      outbox = outbox.filter((other) => other !== message);
      outboxChanged = true;
      $("text").focus();
    };
    if (message.state === "failed") {
      const words = element("p", "error", `${message.isUnsure ? "Perhaps not sent" : "Not sent"}. ${message.reason} `);
      words.role = "alert";
      words.append(
        buttonFor("Send again", () => {
          remove();
          outbox.push({ text: message.text, state: "waiting" });
          sendAll();
        }),
        " ",
        buttonFor("Take back", () => {
          remove();
          putInBox([message.text, $("text").value].filter(Boolean).join("\n"));
          redraw();
        }),
      );
      row.append(text, words);
    } else row.append(text);
    return row;
  }));
}

// drawPeople makes the rows those of the first names. Both are sorted, so one walk along them finds
// what to put in and what to take out.
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
      const added = element("li", name === me ? "mine" : "");
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

// thisSecond makes the last of the rates that of the current second. (The timers of a hidden tab
// run late, so several seconds may have gone by.)
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

// show tells how the connection is.
function show(newState, words) {
  state = newState;
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

// The title counts what was said while nobody looked.
let unread = 0;

function drawTitle() {
  const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
  document.title = me ? `${count}${me} · Lobby` : "Lobby";
}

// --- How we come and go ------------------------------------------------------

// Characters that only shape what stands before them may follow it, though they can't be seen.
const shaping = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{e0020}-\u{e007f}]/gu;
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Noncharacter_Code_Point}\p{Default_Ignorable_Code_Point}\u2800]/u;

// problemWithName says why the server would refuse a name, or "".
function problemWithName(name) {
  const length = [...name].length;
  if (/\s/.test(name)) return "A name can't have a space in it.";
  if (name.includes("/")) return "A name can't have a slash in it.";
  if (name === "." || name === "..") return "A name can't be dots alone.";
  if (unseen.test(name.replace(shaping, ""))) return "A name can't have an invisible character in it.";
  if (length > 64) return `A name has at most 64 characters. This one has ${length}.`;
  return name ? "" : "A name has at least one character.";
}

const nameInBox = () => $("name").value.trim().normalize("NFC");

// The tab keeps the name for its next load, if the browser lets it.
const memory = {
  get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* then we ask again */ } },
};

async function join(name) {
  me = name;
  memory.set("name", name);
  memory.set("here", "yes");
  show("waiting", "Waiting");
  drawPlace();
  await takeSlot();
  isFull = false;
  drawPlace();
  connect();
}

// leave ends our stream. The others hear of it when the server is sure that we don't come back, as
// after a reload.
function leave(words = "") {
  disconnect();
  giveSlotBack();
  me = lastId = cameAfter = "";
  failures = unread = 0;
  isFull = false;
  people = new Set();
  latest = {};
  fresh = [];
  outbox = [];
  sinceSummary = [];
  for (const id of ["lines", "outbox", "people"]) $(id).replaceChildren();
  $("name-error").textContent = words;
  $("send-error").textContent = "";
  notify("");
  memory.set("here", "");
  drawPlace();
}

// drawPlace shows where we are: at the door, waiting for a slot, or in the room.
function drawPlace() {
  drawTitle();
  $("my-name").textContent = me;
  $("join").hidden = me !== "";
  $("full").hidden = !isFull;
  $("room").hidden = !me || isFull;
  for (const id of ["state", "you"]) $(id).hidden = !me;
  $("elsewhere").parentElement.hidden = !otherHost();
  $("elsewhere").textContent = otherHost();
  $("elsewhere").href = `//${otherHost()}/#name=${encodeURIComponent(me)}`;
  (isFull ? $("elsewhere") : $(me ? "text" : "name")).focus();
}

// otherHost returns another name of this machine, to which the browser opens six connections more,
// or "".
function otherHost() {
  const [, number = 1] = location.hostname.match(/^(\d+)\.localhost$/) ?? [];
  const isLoopback = /^(127\..*|(.*\.)?localhost|\[::1\])$/.test(location.hostname);
  return isLoopback ? location.host.replace(location.hostname, `${Number(number) + 1}.localhost`) : "";
}

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = nameInBox();
  $("name-error").textContent = problemWithName(name);
  if (!problemWithName(name)) join(name);
});

$("name").addEventListener("input", () => {
  if ($("name-error").textContent) $("name-error").textContent = problemWithName(nameInBox());
});

$("leave").addEventListener("click", () => leave());

// On every load, and when the browser brings the page back as it was left.
addEventListener("pageshow", () => {
  $("curl").lastElementChild.textContent = `curl -N ${location.origin}/chat`;
  $("name").value = memory.get("name") ?? new URLSearchParams(location.hash.slice(1)).get("name") ?? "";
  if (me) join(me);
  else if (memory.get("here")) join(memory.get("name"));
  else drawPlace();
});

// A page that the browser keeps for the way back must keep nothing that others need.
addEventListener("pagehide", () => {
  disconnect();
  giveSlotBack();
});

// On another network, or after sleep, the old connection may be dead without a word.
for (const type of ["online", "offline"]) addEventListener(type, reconnect);
document.addEventListener("resume", reconnect);

let ticked = Date.now();

// noticeSleep reconnects when the page is seen after a time in which it did not run.
function noticeSleep() {
  const slept = Date.now() - ticked > 5000;
  ticked = Date.now();
  if (slept && !document.hidden) reconnect();
}

document.addEventListener("visibilitychange", () => {
  unread = 0;
  drawTitle();
  noticeSleep();
});

setInterval(() => {
  noticeSleep();
  drawRates();
  if (state !== "live" || !listId) return;
  // DELETE /users/NAME can have removed us while our stream goes on. (Right after it opened, our
  // arrival may just be on its way.)
  absent = people.has(me) ? 0 : absent + 1;
  notify(absent > 1 ? "You are no longer in the chat." : "", "Join again");
}, 1000);

setInterval(summarise, 5000);
drawRates();
