// The script of the demo page, to be read from top to bottom.
//
// The list of present users stays exact without polling: the Last-Event-ID header of GET /users
// names the last event that the list reflects, and the stream continues from there. The page
// fetches the list again only after a gap in the stream or a lost connection.

const $ = (id) => document.getElementById(id);
const put = (id, text) => ($(id).textContent = text);
const on = (target, type, handle) => target.addEventListener(type, handle);
const inWords = (n) => n.toLocaleString("en");

const maxRows = 500; // in the conversation
const maxNames = 200; // in the list; the search box finds the others
const maxPast = 100; // past events shown on joining

// --- What the page knows ---

let me = ""; // the user's name while in the room
let lastId = ""; // the id of the last event received, from which a stream resumes
let joinedAfter = ""; // the id of the last event before the user joined
let people = new Set(); // the names of the present users
let peopleChanged = false; // since the list was drawn

let listId = ""; // the id of the last event that the list reflects; "" while it is being fetched
let pendingPresence = []; // arrivals and departures received meanwhile

// An id is EPOCH-SEQ.
function parse(id) {
	const dash = id.lastIndexOf("-");
	return { epoch: id.slice(0, dash), seq: Number(id.slice(dash + 1)) };
}

// isUpTo reports whether id is otherId or earlier, in the same epoch.
function isUpTo(id, otherId) {
	const [event, other] = [parse(id), parse(otherId)];
	return event.epoch === other.epoch && event.seq <= other.seq;
}

// --- How it stays connected ---

let source = null; // the stream, which keeps the user present while it is open
let state = ""; // one of stateWords, below
let failures = 0; // failed attempts to connect since the page was last live
let attempt = 0; // the current attempt; results of earlier ones are ignored

let awaited = ""; // the id of an event that a response promised and the stream has not brought
let timer = 0; // limits the wait for that event or for the stream, or delays the next attempt

// connect fetches the list and resumes the stream from the last event received. The first time,
// the stream starts a little earlier, to show what was said before the user joined.
async function connect() {
	disconnect();
	show(lastId ? "reconnecting" : "connecting");
	if (!(await fetchPeople())) return;
	const { epoch, seq } = parse(listId);
	if (!lastId) {
		joinedAfter = listId;
		lastId = `${epoch}-${Math.max(0, seq - maxPast)}`;
	}
	expect(people.has(me) ? listId : `${epoch}-${seq + 1}`); // the own arrival is still to come
	source = openStream();
	waitAtMost(5);
}

function disconnect() {
	attempt++;
	stopWaiting();
	source?.close();
	source = null;
}

// reconnect is called when the connection may have died silently.
function reconnect() {
	if (me && state !== "waiting") connect();
}

const chatPath = () => `/chat/${encodeURIComponent(me)}`;
const streamPath = () => `${chatPath()}?lastEventId=${lastId}`;

// openStream returns a stream whose events are ignored once it is no longer the current one: when
// WebKit restores a page, it reopens the page's streams, even those that the page had closed.
function openStream() {
	const opened = new EventSource(streamPath());
	const handlers = { open: goLive, message: receive, gap: receiveGap, error: lost };
	for (const [type, handle] of Object.entries(handlers)) {
		on(opened, type, (event) => {
			if (opened === source) handle(event);
			else opened.close();
		});
	}
	return opened;
}

// expect notes that the stream must bring the event with this id.
function expect(id) {
	awaited = isUpTo(id, lastId) ? "" : id;
}

function waitAtMost(seconds) {
	timer ||= setTimeout(timedOut, seconds * 1000);
}

function stopWaiting() {
	clearTimeout(timer);
	timer = 0;
}

// timedOut is called when an awaited event or stream has not arrived. A stream that was live is
// dead; a new one gets more time.
function timedOut() {
	stopWaiting();
	if (state === "live") return connect();
	const words = "The server responds, but its event stream does not arrive. " +
		"A proxy or antivirus may be buffering it.";
	notify(words, "Try now");
	timer = setTimeout(() => tryLater(new Error(words)), 30_000);
}

// advanceTo notes that the stream has brought everything up to the event with this id.
function advanceTo(id) {
	lastId = id;
	stopWaiting();
	expect(awaited);
	if (state !== "live") goLive();
	if (awaited) waitAtMost(state === "live" ? 3 : 5);
}

// goLive shows the page as live once the stream is open and no event is awaited.
function goLive() {
	if (awaited || source.readyState !== EventSource.OPEN) return;
	stopWaiting();
	failures = 0;
	show("live");
	notify("");
}

// fetchPeople returns whether it succeeded. If not, another attempt has begun or is scheduled.
async function fetchPeople() {
	const thisAttempt = ++attempt;
	listId = "";
	pendingPresence = [];
	try {
		const response = await request("/users", { headers: { Accept: "application/json" } });
		const { users } = await response.json().catch(cutOff);
		if (thisAttempt !== attempt) return false;
		people = new Set(users);
		peopleChanged = true;
		listId = response.headers.get("Last-Event-ID");
		pendingPresence.forEach(apply);
		redraw();
		return true;
	} catch (error) {
		if (thisAttempt === attempt) tryLater(error);
		return false;
	}
}

// lost is called when the stream has ended. The browser resumes it once by itself. If that fails,
// or the response was an error such as 503, the page reconnects.
async function lost() {
	stopWaiting();
	if (source.readyState === EventSource.CONNECTING && failures === 0) {
		failures = 1;
		show("reconnecting");
		waitAtMost(8); // of which the browser may pause for 3
		return;
	}
	const refused = source.readyState === EventSource.CLOSED;
	disconnect();
	const thisAttempt = attempt;
	let reason = new Error("The connection was lost.");
	if (refused) {
		// An EventSource does not reveal the response, so request it once more.
		await request(streamPath()).then(({ body }) => body.cancel(), (error) => (reason = error));
	}
	if (thisAttempt === attempt) tryLater(reason);
}

// tryLater reconnects with increasing, randomized delays.
function tryLater(error) {
	disconnect();
	if (error.status === 400) return leave(error.message); // the name is invalid
	failures++;
	const delay = Math.min(2 ** failures, 30) * (0.5 + Math.random() / 2) + (error.retryAfter || 0);
	const at = Date.now() + delay * 1000;
	show(error.gone ? "gone" : "reconnecting");
	notify(error.message, "Try now");
	(function countDown() {
		const left = Math.ceil((at - Date.now()) / 1000);
		if (left <= 0) return connect();
		put("state-when", `in ${left} s`);
		timer = setTimeout(countDown, 200);
	})();
}

// request returns a successful response, or throws an error with a sentence for the user.
async function request(path, options) {
	const always = { cache: "no-store", signal: AbortSignal.timeout(10_000) };
	const response = await fetch(path, { ...always, ...options }).catch(cutOff);
	if (response.ok) return response;
	const hasWords = response.headers.get("Content-Type")?.startsWith("text/plain");
	const words = hasWords && (await response.text().catch(cutOff));
	throw Object.assign(new Error(words || `The server responded with ${response.status}.`), {
		status: response.status,
		retryAfter: Number(response.headers.get("Retry-After")),
	});
}

// cutOff replaces the browser's own error for a response that is missing or incomplete.
function cutOff({ name }) {
	const words = name === "TimeoutError" ? "does not respond." : "can't be reached.";
	throw Object.assign(new Error(`The server ${words}`), { gone: true });
}

// --- How tabs share the connections ---

// Over HTTP/1.1 a browser opens six connections to a host, for all tabs together. Each stream
// occupies one, so at most five tabs open streams and all tabs share the sixth. A slot is a lock
// that tabs compete for. (Over plain http, browsers offer locks only at loopback addresses.)
const slots = [1, 2, 3, 4, 5].map((n) => `slot ${n}`);
const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
const needsSlot = navigator.locks && protocol !== "h2" && protocol !== "h3";

let releaseSlot = () => {}; // releases this tab's slot, or stops waiting for one
let isFull = false; // other tabs hold all slots

// takeSlot waits until this tab has a slot.
function takeSlot() {
	releaseSlot();
	if (!needsSlot) return Promise.resolve();
	return new Promise((taken) => {
		const waiting = new AbortController();
		const { signal } = waiting;
		releaseSlot = () => waiting.abort();
		const take = () => {
			waiting.abort(); // do not take the others, too
			taken();
			return new Promise((free) => (releaseSlot = free));
		};
		for (const slot of slots) navigator.locks.request(slot, { signal }, take).catch(() => {});
		navigator.locks.query().then(({ held }) => {
			isFull = !signal.aborted && slots.every((slot) => held.some(({ name }) => name === slot));
			if (isFull) drawPlace();
		});
	});
}

// --- What an event changes ---

const presence = /^User (\S+) (connected to|disconnected from) the chat\.$/;

// receive handles an event. Names contain no spaces, so its sentence is unambiguous.
function receive({ data, lastEventId: id }) {
	const isNew = !isUpTo(id, listId); // so it happened just now
	if (isNew) {
		thisSecond();
		rates[rates.length - 1]++;
	}
	const line = { time: isNew ? Date.now() : 0, isPast: isUpTo(id, joinedAfter) };
	const [, name, verb] = data.match(presence) ?? [];
	if (name) {
		const kind = verb === "connected to" ? "joined" : "left";
		if (listId) apply({ id, name, kind });
		else pendingPresence.push({ id, name, kind });
		write({ ...line, kind, name });
	} else {
		const space = data.indexOf(" ");
		const [speaker, text] = [data.slice(0, space - 1), data.slice(space + 1)];
		if (speaker === me) confirm(id, text);
		write({ ...line, kind: "said", name: speaker, text });
	}
	if (id === joinedAfter) write({ kind: "now", text: "↑ before you joined" });
	advanceTo(id);
}

// receiveGap is called when the server no longer has everything after the last event received.
function receiveGap({ lastEventId: id }) {
	const text = "Some messages are missing: the server no longer has them.";
	if (id !== joinedAfter) write({ kind: "gap", text });
	if (parse(id).epoch !== parse(awaited).epoch) awaited = ""; // it will never arrive
	setOutbox(outbox.filter((message) => !message.id || isUpTo(id, message.id)));
	advanceTo(id);
	fetchPeople();
}

// apply updates the list with an arrival or departure, unless the list already reflects it.
function apply({ id, name, kind }) {
	if (!isUpTo(listId, id) || id === listId) return;
	if (kind === "joined") people.add(name);
	else people.delete(name);
	peopleChanged = true;
}

const maxCrowd = 1000; // arrivals and departures in one item
let latest = {}; // the last item of the conversation
let lastMinute = 0; // of the last message
let fresh = []; // items that are new or have grown since they were drawn

// write adds a line to the conversation. Its items are lines and crowds, which are consecutive
// arrivals and departures.
function write(line) {
	const isSaid = line.kind === "said";
	const isPresence = line.kind === "joined" || line.kind === "left";
	if (isPresence && latest.lines?.length < maxCrowd) {
		latest.lines.push(line);
		if (fresh.at(-1) !== latest) fresh.push(latest);
	} else {
		const minute = Math.floor(line.time / 60_000);
		line.beginsMinute = isSaid && minute > 0 && minute !== lastMinute;
		line.follows = isSaid && latest.name === line.name && !line.beginsMinute;
		if (isSaid) lastMinute = minute;
		latest = isPresence ? { lines: [line] } : line;
		fresh.push(latest);
		if (fresh.length > 2 * maxRows) fresh.splice(0, maxRows); // the end is not in sight
	}
	redraw();
	if (line.name === me || line.isPast) return;
	sinceSummary.push(line);
	if (isSaid && document.hidden && unread < 100) drawTitle(unread + 1);
}

// --- How messages are sent ---

const [maxBytes, maxLines] = [4096, 32]; // of a message

// The user's messages that the stream has not brought yet. A message is waiting, sending, sent (it
// then has the id of its event) or failed.
let outbox = [];
let outboxChanged = false; // since it was drawn
let isSending = false;

function setOutbox(messages) {
	outbox = messages;
	outboxChanged = true;
	redraw();
}

function say(text) {
	setOutbox([...outbox, { text, state: "waiting" }]);
	sendAll();
}

function forget(message) {
	setOutbox(outbox.filter((other) => other !== message));
}

function update(message, changes) {
	Object.assign(message, changes);
	setOutbox(outbox);
}

// sendAll sends the waiting messages one at a time, to keep them in order.
async function sendAll() {
	if (isSending) return;
	isSending = true;
	for (let message; (message = outbox.find(({ state }) => state === "waiting")); ) {
		update(message, { state: "sending" });
		try {
			const response = await request(chatPath(), { method: "POST", body: message.text });
			sent(message, response.headers.get("Last-Event-ID"));
		} catch (error) {
			failed(message, error);
		}
	}
	isSending = false;
}

// sent is called when the server has accepted a message, which the stream must bring within 3 s.
function sent(message, id) {
	update(message, { state: "sent", id });
	if (isUpTo(id, lastId)) forget(message);
	else if (outbox.includes(message)) {
		expect(id);
		if (state === "live") waitAtMost(3);
	}
}

// failed is called when a message was rejected or its fate is unknown.
function failed(message, { message: reason, gone, status }) {
	const words = gone || status === 504 ? "May not have been sent." : "Not sent.";
	update(message, { state: "failed", error: `${words} ${reason} ` });
	if (!gone) return;
	const rest = outbox.filter(({ state }) => state === "waiting");
	for (const other of rest) update(other, { state: "failed", error: `Not sent. ${reason} ` });
	if (state === "live") connect();
}

// confirm is called when the stream brings a message of the user: before the response, after it, or
// without one.
function confirm(id, text) {
	const isSame = (message) => message.text === text && message.state !== "waiting";
	forget(outbox.find((message) => message.id === id) ?? outbox.find(isSame));
}

const textInBox = () => $("text").value.replace(/\r\n?|[\u2028\u2029]/g, "\n").trimEnd();
const bytesLeft = () => maxBytes - new TextEncoder().encode(textInBox()).length;

// problemWithText says why the server would reject the text in the box, or returns "".
function problemWithText() {
	const lines = textInBox().split("\n").length;
	if (bytesLeft() < 0) return `This is ${inWords(-bytesLeft())} bytes too long for one message.`;
	if (lines > maxLines) return `This has ${lines} lines; a message has at most ${maxLines}.`;
	return "";
}

// boxChanged updates the remaining length, a stale error, and the box's height.
function boxChanged() {
	const [box, left] = [$("text"), bytesLeft()];
	const room = left < 0 ? `${inWords(-left)} bytes too long` : `${inWords(left)} bytes left`;
	put("text-left", left < maxBytes / 4 ? room : "");
	if ($("send-error").textContent) put("send-error", problemWithText());
	if (CSS.supports("field-sizing", "content")) return;
	box.style.height = "auto";
	box.style.height = `${box.scrollHeight + 2}px`; // 2 for its border
}

function putInBox(text) {
	$("text").value = text;
	boxChanged();
	$("text").focus();
}

on($("send"), "submit", (event) => {
	event.preventDefault();
	const text = textInBox();
	put("send-error", problemWithText());
	if (!text || problemWithText()) return;
	putInBox("");
	say(text);
	drawLines(true);
});

on($("text"), "input", boxChanged);

on($("text"), "keydown", (event) => {
	const composing = event.isComposing || event.keyCode === 229; // in Safari
	if (event.key !== "Enter" || event.shiftKey || composing) return;
	event.preventDefault();
	$("send").requestSubmit();
});

// --- How it is drawn ---

let frame = 0; // the requested animation frame, if any
let drawn = 0; // when the page was last drawn

// redraw draws soon, once for all calls until then, and at most 20 times a second.
function redraw() {
	frame ||= requestAnimationFrame((now) => {
		frame = 0;
		if (now - drawn < 50) return redraw();
		drawn = now;
		drawLines();
		if (peopleChanged) drawPeople();
	});
}

// element creates an element with text, which never becomes markup.
function element(tag, className, text = "") {
	const created = document.createElement(tag);
	created.className = className;
	created.textContent = text;
	return created;
}

function button(words, onClick) {
	const created = element("button", "plain", words);
	on(created, "click", onClick);
	return created;
}

// nameTag isolates the name, so that right-to-left names do not affect the surrounding text.
// The hues of similar names, such as user1 and user2, are a golden section apart.
function nameTag(name) {
	const tag = element("bdi", "name", name);
	let hash = 0;
	for (const character of name) hash = Math.imul(hash + character.codePointAt(0), 0x9e3779b1);
	tag.style.setProperty("--hue", ((hash >>> 0) / 2 ** 32) * 360);
	return tag;
}

function textTag(text) {
	const tag = element("p", "text", text);
	tag.dir = "auto";
	return tag;
}

// lineTag creates the row of a line. Its time is unknown if the page was not connected then.
function lineTag(tag, { kind, name, text, time, isPast, beginsMinute, follows }) {
	const classes = ["line", kind, name === me && "mine", isPast && "past", follows && "follows"];
	const row = element(tag, classes.filter(Boolean).join(" "));
	if (time) row.title = new Date(time).toLocaleString();
	if (name) row.append(nameTag(name));
	if (kind === "joined") row.append(" joined");
	if (kind === "left") row.append(" left");
	if (beginsMinute) {
		const minute = { hour: "2-digit", minute: "2-digit" };
		row.append(element("time", "", new Date(time).toLocaleTimeString([], minute)));
	}
	if (text) row.append(name ? textTag(text) : text);
	return row;
}

// summary counts the people in some lines by what they did.
function summarize(lines) {
	const count = ([kind, verb]) => {
		const { size } = new Set(lines.filter((line) => line.kind === kind).map(({ name }) => name));
		return size && `${inWords(size)} ${size === 1 ? "person" : "people"} ${verb}`;
	};
	const verbs = [["joined", "joined"], ["left", "left"], ["said", "spoke"]];
	return verbs.map(count).filter(Boolean).join(", ");
}

// drawItem returns the row of an item. The row of a crowd is kept and updated.
function drawItem(item) {
	const { lines } = item;
	if (!lines) return lineTag("li", item);
	item.row ??= element("li", "");
	const show = (some) => some.map((line) => lineTag("p", line));
	if (lines.length <= 3) {
		item.row.replaceChildren(...show(lines));
		return item.row;
	}
	let details = item.row.querySelector("details");
	if (!details) {
		details = element("details", "line crowd");
		details.append(element("summary", ""));
		item.row.replaceChildren(details);
		on(details, "toggle", () => drawItem(item));
	}
	const summary = details.firstChild;
	summary.textContent = summarize(lines);
	details.replaceChildren(summary, ...show(details.open ? lines.slice(-maxNames) : []));
	return item.row;
}

// The log is laid out from its end (column-reverse), where scrollTop is 0, so the browser keeps its
// end in sight. While the user is elsewhere, new lines are held back, so that nothing moves.
function drawLines(toEnd = false) {
	const [log, list] = [$("log"), $("lines")];
	const waited = !$("newer").hidden && !toEnd;
	if (toEnd) log.scrollTop = 0;
	if (fresh.length > 0 && log.scrollTop > -40) {
		const rows = fresh.slice(-maxRows).map(drawItem);
		fresh = [];
		list.append(...rows);
		while (list.childElementCount > maxRows) list.firstElementChild.remove();
		if (waited) rows[0].scrollIntoView({ block: "end" }); // continue where the user was
		else log.scrollTop = 0;
	}
	if (outboxChanged) $("outbox").replaceChildren(...outbox.map(messageRow));
	outboxChanged = false;
	$("newer").hidden = fresh.length === 0;
	put("newer", `${fresh.length > maxRows ? `${maxRows}+` : fresh.length} new ↓`);
}

on($("log"), "scroll", () => fresh.length > 0 && redraw());
on($("newer"), "click", () => {
	drawLines(true);
	$("log").focus();
});

function messageRow(message) {
	const { text, state, error } = message;
	const row = element("li", "line said mine unsent");
	row.append(textTag(text));
	if (state !== "failed") return row;
	const alert = element("p", "error", error);
	alert.role = "alert";
	const sendAgain = () => {
		forget(message);
		say(text);
		$("text").focus();
	};
	const edit = () => {
		forget(message);
		putInBox([text, $("text").value].filter(Boolean).join("\n"));
	};
	alert.append(button("Send again", sendAgain), " ", button("Edit", edit));
	row.append(alert);
	return row;
}

// drawPeople keeps the rows of those who stay, so that the list does not jump.
function drawPeople() {
	peopleChanged = false;
	const wanted = $("find").value.trim().toLowerCase();
	const names = [...people].filter((name) => name.toLowerCase().includes(wanted)).sort();
	const shown = new Set(names.slice(0, maxNames));
	for (const row of [...$("people").children]) if (!shown.has(row.textContent)) row.remove();
	let next = $("people").firstElementChild;
	for (const name of shown) {
		if (next?.textContent === name) {
			next = next.nextElementSibling;
			continue;
		}
		const row = element("li", name === me ? "mine" : "");
		row.append(nameTag(name));
		$("people").insertBefore(row, next);
	}
	const others = names.length - maxNames;
	put("others", others > 0 ? `and ${inWords(others)} more` : "");
	put("count", inWords(people.size));
	$("find-label").hidden = people.size <= 20 && !wanted;
}

on($("find"), "input", drawPeople);

// rates counts the events of each of the last 60 seconds and of this one.
const rates = Array(61).fill(0);
let second = 0;

// thisSecond makes the last rate that of the current second. (Timers may run late.)
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
	put("rate", inWords(whole.at(-1)));
	put("peak", `last minute, peak ${inWords(peak)}`);
}

const stateWords = {
	waiting: "Waiting", // for a slot
	connecting: "Connecting",
	live: "Live",
	reconnecting: "Reconnecting",
	gone: "Server unreachable, retrying",
};

function show(newState) {
	state = newState;
	$("state").dataset.state = state;
	put("state-words", stateWords[state]);
	put("state-when", "");
}

// notify shows a sentence above the conversation, with a button for the remedy.
function notify(words, remedy = "") {
	if ($("notice-words").textContent === words) return; // do not announce it twice
	put("notice-words", words);
	put("again", remedy);
	$("notice").hidden = !words;
}

on($("again"), "click", connect);

// What others did is announced to screen readers now and then, in few words.
let sinceSummary = [];

function announce() {
	const [first, second] = sinceSummary;
	const gap = sinceSummary.find(({ kind }) => kind === "gap")?.text ?? "";
	if (first?.kind === "said" && !second) put("summary", `${first.name}: ${first.text}`);
	else put("summary", `${gap} ${summarize(sinceSummary)}`);
	sinceSummary = [];
}

let unread = 0; // messages since the page was last in sight

function drawTitle(nowUnread) {
	unread = nowUnread;
	const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
	document.title = me ? `${count}${me} · Lobby` : "Lobby";
}

// --- How the user joins and leaves ---

// Characters that only modify the one before them are allowed.
const shaping = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{e0020}-\u{e007f}]/gu;
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{NChar}\p{DI}\u2800]/u;

const nameInBox = () => $("name").value.trim().normalize("NFC");

// problemWithName says why the server would reject the name in the box, or returns "".
function problemWithName() {
	const name = nameInBox();
	const { length } = [...name];
	if (/[\s/]/.test(name)) return "A name can't contain spaces or slashes.";
	if (unseen.test(name.replace(shaping, ""))) return "A name can't contain invisible characters.";
	if (length > 64) return `A name has at most 64 characters; this one has ${length}.`;
	return /^\.{0,2}$/.test(name) ? "A name can't be empty, “.” or “..”." : "";
}

async function join(name) {
	me = name;
	history.replaceState({ name, isInRoom: true }, ""); // which a reload keeps
	show("waiting");
	drawPlace();
	await takeSlot();
	isFull = false;
	drawPlace();
	connect();
}

// leave closes the stream. The user stays present until the grace period has expired.
function leave(words = "") {
	disconnect();
	releaseSlot();
	history.replaceState({ name: me }, "");
	me = lastId = listId = joinedAfter = "";
	failures = 0;
	isFull = false;
	people = new Set();
	[latest, fresh, outbox, sinceSummary] = [{}, [], [], []];
	for (const id of ["lines", "outbox", "people"]) $(id).replaceChildren();
	put("name-error", words);
	put("send-error", "");
	notify("");
	drawPlace();
}

// drawPlace shows the door, the wait for a slot, or the room.
function drawPlace() {
	drawTitle(0);
	put("my-name", me);
	$("join").hidden = me !== "";
	$("full").hidden = !isFull;
	$("room").hidden = !me || isFull;
	for (const id of ["state", "you"]) $(id).hidden = !me;
	const { hostname } = location;
	const [, number = 1] = hostname.match(/^(\d+)\.localhost$/) ?? [];
	const link = $("elsewhere"); // to another name of this machine, for six more connections
	link.href = `/#name=${encodeURIComponent(me)}`;
	link.hostname = `${Number(number) + 1}.localhost`;
	link.textContent = link.host;
	link.parentElement.hidden = !/^127\.|^\[::1\]$|^(.*\.)?localhost$/.test(hostname);
	$(isFull ? "elsewhere" : me ? "text" : "name").focus();
}

on($("join"), "submit", (event) => {
	event.preventDefault();
	put("name-error", problemWithName());
	if (!problemWithName()) join(nameInBox());
});

on($("name"), "input", () => {
	if ($("name-error").textContent) put("name-error", problemWithName());
});

on($("leave"), "click", () => leave());

// On every load, and when the browser restores the page from its back/forward cache.
on(window, "pageshow", () => {
	$("curl").lastElementChild.textContent = `curl -N ${location.origin}/chat`;
	const name = new URLSearchParams(location.hash.slice(1)).get("name"); // from the link above
	const kept = history.state ?? { name };
	$("name").value = kept.name;
	if (kept.isInRoom) join(kept.name);
	else drawPlace();
});

// Release the connection and the slot while in the back/forward cache.
on(window, "pagehide", () => {
	disconnect();
	releaseSlot();
});

// On another network, or after sleep, the old connection may be dead.
on(window, "online", reconnect);
on(window, "offline", reconnect);
on(document, "resume", reconnect);

on(document, "visibilitychange", () => drawTitle(0));

let lastTick = Date.now();

setInterval(() => {
	const slept = Date.now() - lastTick > 5000;
	lastTick = Date.now();
	if (slept && !document.hidden) reconnect();
	drawRates();
	if (state !== "live" || !listId) return;
	// DELETE /users/NAME removes us while our stream goes on.
	notify(people.has(me) ? "" : "You are no longer in the chat.", "Join again");
}, 1000);

setInterval(announce, 5000);
drawRates();
