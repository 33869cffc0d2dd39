// The script of the demo page, to be read from top to bottom.
//
// The list of who is here is exact without polling: GET /users says in its header Last-Event-ID
// which event it was taken after, and the stream goes on from there. The page asks for the list
// again only after a gap in the stream or a lost connection.

const $ = (id) => document.getElementById(id);
const put = (id, text) => ($(id).textContent = text);
const on = (target, type, handle) => target.addEventListener(type, handle);
const inWords = (n) => n.toLocaleString("en");

const maxRows = 500; // in the conversation
const maxNames = 200; // in one place; the box above the list finds the others
const maxPast = 100; // events shown from before we came

// --- What the page knows ---

let me = ""; // our name while we are here
let lastId = ""; // the id of the last event heard, after which the stream goes on
let cameAfter = ""; // the id of the last event before we came
let people = new Set(); // the names of who is here
let peopleChanged = false; // since they were drawn

let listId = ""; // the id of the last event that the list has in it; "" while we ask for the list
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

// --- How it stays connected ---

let source = null; // our stream; our name is among the people while it is open
let state = ""; // one of stateWords, below
let failures = 0; // attempts to connect since we were last live
let lastQuestion = 0; // answers to earlier questions than this one are no longer wanted

let owed = ""; // the id of an event that must still come, because an answer told us of it
let timer = 0; // runs while we wait for that, for the stream to open, or to try again

// connect asks who is here and opens the stream after the last event heard, so nothing is missed.
// The first time, it goes back a little further, to show what was said before we came.
async function connect() {
	disconnect();
	show(lastId ? "reconnecting" : "connecting");
	if (!(await askForPeople())) return;
	const { epoch, seq } = parse(listId);
	if (!lastId) {
		cameAfter = listId;
		lastId = `${epoch}-${Math.max(0, seq - maxPast)}`;
	}
	owe(people.has(me) ? listId : `${epoch}-${seq + 1}`); // our arrival is the next one, or later
	source = openStream();
	expectWithin(5);
}

function disconnect() {
	lastQuestion++;
	stopWaiting();
	source?.close();
	source = null;
}

// reconnect is for when the connection may be dead without a word.
function reconnect() {
	if (me && state !== "waiting") connect();
}

const chatPath = () => `/chat/${encodeURIComponent(me)}`;
const streamPath = () => `${chatPath()}?lastEventId=${lastId}`;

// openStream returns a stream whose events count only while it is ours: when WebKit brings a page
// back, it opens the page's streams again, even those that the page had closed.
function openStream() {
	const opened = new EventSource(streamPath());
	const handlers = { open: settle, message: hear, gap: hearGap, error: lost };
	for (const [type, handle] of Object.entries(handlers)) {
		on(opened, type, (event) => {
			if (opened === source) handle(event);
			else opened.close();
		});
	}
	return opened;
}

// owe takes note that the stream must bring the event with this id.
function owe(id) {
	owed = isUpTo(id, lastId) ? "" : id;
}

// expectWithin starts the wait for what must come, unless we wait already.
function expectWithin(seconds) {
	timer ||= setTimeout(overdue, seconds * 1000);
}

function stopWaiting() {
	clearTimeout(timer);
	timer = 0;
}

// overdue is called when what had to come did not. A stream that was live is dead; a new one may
// still come.
function overdue() {
	stopWaiting();
	if (state === "live") return connect();
	const words = "The server answers, but its stream does not get through. " +
		"Probably a proxy or a virus scanner holds it back.";
	notify(words, "Try now");
	timer = setTimeout(() => tryLater(new Error(words)), 30_000);
}

// cameTo takes note that the stream has come as far as the event with this id.
function cameTo(id) {
	lastId = id;
	stopWaiting();
	owe(owed);
	if (state !== "live") settle();
	if (owed) expectWithin(state === "live" ? 3 : 5);
}

// settle makes the page live once the stream is open and owes nothing.
function settle() {
	if (owed || source.readyState !== EventSource.OPEN) return;
	stopWaiting();
	failures = 0;
	show("live");
	notify("");
}

// askForPeople returns whether they are known now. If not, something else is under way already.
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

// lost is called when the stream has ended. At first the browser itself opens it again, from the
// last id that it got. If it gives up (at an answer such as 503) or has failed once, we do it.
async function lost() {
	stopWaiting();
	if (source.readyState === EventSource.CONNECTING && failures === 0) {
		failures = 1;
		show("reconnecting");
		expectWithin(8); // of which the browser may wait 3
		return;
	}
	const refused = source.readyState === EventSource.CLOSED;
	disconnect();
	const question = lastQuestion;
	let reason = new Error("The connection was lost.");
	if (refused) {
		// An EventSource doesn't tell what the answer was, so we ask for it.
		await ask(streamPath()).then(({ body }) => body.cancel(), (error) => (reason = error));
	}
	if (question === lastQuestion) tryLater(reason);
}

// tryLater connects again: later each time, and not in step with others.
function tryLater(error) {
	disconnect();
	if (error.status === 400) return leave(error.message); // the server never takes this name
	failures++;
	const pause = Math.min(2 ** failures, 30) * (0.5 + Math.random() / 2) + (error.retryAfter || 0);
	const at = Date.now() + pause * 1000;
	show(error.gone ? "gone" : "reconnecting");
	notify(error.message, "Try now");
	(function countDown() {
		const left = Math.ceil((at - Date.now()) / 1000);
		if (left <= 0) return connect();
		put("state-when", `in ${left} s`);
		timer = setTimeout(countDown, 200);
	})();
}

// ask makes a request, and throws an error in words if it does not succeed.
async function ask(path, options) {
	const always = { cache: "no-store", signal: AbortSignal.timeout(10_000) };
	const answer = await fetch(path, { ...always, ...options }).catch(cutOff);
	if (answer.ok) return answer;
	const hasWords = answer.headers.get("Content-Type")?.startsWith("text/plain");
	const words = hasWords && (await answer.text().catch(cutOff));
	throw Object.assign(new Error(words || `The server answered ${answer.status}.`), {
		status: answer.status,
		retryAfter: Number(answer.headers.get("Retry-After")),
	});
}

// cutOff says in our words, not the browser's, that no answer came, or not all of it.
function cutOff({ name }) {
	const words = name === "TimeoutError" ? "does not answer." : "can't be reached.";
	throw Object.assign(new Error(`The server ${words}`), { gone: true });
}

// --- How tabs share the connections ---

// Over HTTP/1.1 a browser opens six connections to a host, for all tabs together. A stream keeps
// one, so at most five tabs have streams, and the rest share the sixth connection. Each slot is a
// lock, which tabs share. (Over plain HTTP, only pages of this machine have locks.)
const slots = [1, 2, 3, 4, 5].map((n) => `slot ${n}`);
const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
const needsSlot = navigator.locks && protocol !== "h2" && protocol !== "h3";

let giveSlotBack = () => {}; // ends our hold on a slot, or our wait for one
let isFull = false; // the other tabs have all slots

// takeSlot waits until we have a slot.
function takeSlot() {
	giveSlotBack();
	if (!needsSlot) return Promise.resolve();
	return new Promise((taken) => {
		const waiting = new AbortController();
		const { signal } = waiting;
		giveSlotBack = () => waiting.abort();
		const take = () => {
			waiting.abort(); // so that we get none of the others
			taken();
			return new Promise((free) => (giveSlotBack = free));
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

// hear takes an event in. No name has a space, so no sentence can be mistaken for another.
function hear({ data, lastEventId: id }) {
	const isNew = !isUpTo(id, listId); // so it happened just now
	if (isNew) {
		thisSecond();
		rates[rates.length - 1]++;
	}
	const line = { time: isNew ? Date.now() : 0, isPast: isUpTo(id, cameAfter) };
	const [, name, verb] = data.match(presence) ?? [];
	if (name) {
		const kind = verb === "connected to" ? "came" : "left";
		if (listId) apply({ id, name, kind });
		else early.push({ id, name, kind });
		write({ ...line, kind, name });
	} else {
		const space = data.indexOf(" ");
		const [speaker, text] = [data.slice(0, space - 1), data.slice(space + 1)];
		if (speaker === me) cameBack(id, text);
		write({ ...line, kind: "said", name: speaker, text });
	}
	if (id === cameAfter) write({ kind: "now", text: "↑ before you came" });
	cameTo(id);
}

// hearGap is called when the server can't tell us all that happened after the last event heard.
function hearGap({ lastEventId: id }) {
	const text = "Something was missed here: the server no longer has it.";
	if (id !== cameAfter) write({ kind: "gap", text });
	if (parse(id).epoch !== parse(owed).epoch) owed = ""; // nothing of that run will come
	setOutbox(outbox.filter((message) => !message.id || isUpTo(id, message.id)));
	cameTo(id);
	askForPeople();
}

// apply makes an arrival or departure count.
function apply({ id, name, kind }) {
	if (!isUpTo(listId, id) || id === listId) return; // the list has it
	if (kind === "came") people.add(name);
	else people.delete(name);
	peopleChanged = true;
}

const maxCrowd = 1000; // arrivals and departures in one item
let latest = {}; // the last item of the conversation
let lastMinute = 0; // of the last thing said
let fresh = []; // items that are not on the page yet, or have grown

// write adds a line to the conversation. Its items are lines, and crowds: arrivals and departures
// in a row.
function write(line) {
	const isSaid = line.kind === "said";
	const isPresence = line.kind === "came" || line.kind === "left";
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
		if (fresh.length > 2 * maxRows) fresh.splice(0, maxRows); // nobody looks at the end now
	}
	redraw();
	if (line.name === me || line.isPast) return;
	sinceSummary.push(line);
	if (isSaid && document.hidden && unread < 100) drawTitle(unread + 1);
}

// --- How we speak ---

const [maxBytes, maxLines] = [4096, 32]; // of a message

// What we said and the stream has not brought yet. A message is waiting, sending, sent (it has the
// id of its event then) or failed.
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

// sendAll sends what waits, one message after another, to keep them in order.
async function sendAll() {
	if (isSending) return;
	isSending = true;
	for (let message; (message = outbox.find(({ state }) => state === "waiting")); ) {
		update(message, { state: "sending" });
		try {
			const answer = await ask(chatPath(), { method: "POST", body: message.text });
			sent(message, answer.headers.get("Last-Event-ID"));
		} catch (error) {
			failed(message, error);
		}
	}
	isSending = false;
}

// sent is called when the server has taken a message, which the stream must bring within 3 s.
function sent(message, id) {
	update(message, { state: "sent", id });
	if (isUpTo(id, lastId)) forget(message);
	else if (outbox.includes(message)) {
		owe(id);
		if (state === "live") expectWithin(3);
	}
}

// failed is called when a message was refused, or when no answer tells whether it was said.
function failed(message, { message: reason, gone, status }) {
	const doubt = gone || status === 504 ? "Perhaps not" : "Not";
	update(message, { state: "failed", error: `${doubt} sent. ${reason} ` });
	if (!gone) return;
	const rest = outbox.filter(({ state }) => state === "waiting");
	for (const other of rest) update(other, { state: "failed", error: `Not sent. ${reason} ` });
	if (state === "live") connect();
}

// cameBack is called when the stream brings our message: before the answer, after it or without.
function cameBack(id, text) {
	const isOurs = (message) => message.text === text && message.state !== "waiting";
	forget(outbox.find((message) => message.id === id) ?? outbox.find(isOurs));
}

const textInBox = () => $("text").value.replace(/\r\n?|[\u2028\u2029]/g, "\n").trimEnd();
const bytesLeft = () => maxBytes - new TextEncoder().encode(textInBox()).length;

// problemWithText says why the server would refuse what is in the box, or "".
function problemWithText() {
	const lines = textInBox().split("\n").length;
	if (bytesLeft() < 0) return `This is ${inWords(-bytesLeft())} bytes too long for one message.`;
	if (lines > maxLines) return `This has ${lines} lines. A message has at most ${maxLines}.`;
	return "";
}

// boxChanged makes true again how much room is left, an error that may be cured, and the height.
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
	const composing = event.isComposing || event.keyCode === 229; // Safari's way to say it
	if (event.key !== "Enter" || event.shiftKey || composing) return;
	event.preventDefault();
	$("send").requestSubmit();
});

// --- How it is drawn ---

let frame = 0; // the next one to draw in, if asked for
let drawn = 0; // when we last drew

// redraw draws soon, once for all calls until then: 20 times a second are enough for the eye.
function redraw() {
	frame ||= requestAnimationFrame((now) => {
		frame = 0;
		if (now - drawn < 50) return redraw();
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

function button(words, onClick) {
	const made = element("button", "plain", words);
	on(made, "click", onClick);
	return made;
}

// nameTag isolates the name, so that one written from right to left turns nothing else round.
// The colours of names that differ little, such as user1 and user2, are a golden section apart.
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

// lineTag shows a line. Its time is not known if it happened while we were not connected.
function lineTag(tag, { kind, name, text, time, isPast, beginsMinute, follows }) {
	const classes = ["line", kind, name === me && "mine", isPast && "past", follows && "follows"];
	const row = element(tag, classes.filter(Boolean).join(" "));
	if (time) row.title = new Date(time).toLocaleString();
	if (name) row.append(nameTag(name));
	if (kind === "came") row.append(" came in");
	if (kind === "left") row.append(" left");
	if (beginsMinute) {
		const minute = { hour: "2-digit", minute: "2-digit" };
		row.append(element("time", "", new Date(time).toLocaleTimeString([], minute)));
	}
	if (text) row.append(name ? textTag(text) : text);
	return row;
}

// inShort says how many people did what in some lines.
function inShort(lines) {
	const count = ([kind, verb]) => {
		const { size } = new Set(lines.filter((line) => line.kind === kind).map(({ name }) => name));
		return size && `${inWords(size)} ${size === 1 ? "person" : "people"} ${verb}`;
	};
	const verbs = [["came", "came in"], ["left", "left"], ["said", "spoke"]];
	return verbs.map(count).filter(Boolean).join(", ");
}

// drawItem returns the row of an item, made anew if a crowd has grown.
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
	summary.textContent = inShort(lines);
	details.replaceChildren(summary, ...show(details.open ? lines.slice(-maxNames) : []));
	return item.row;
}

// The log is laid out from its end (column-reverse): there scrollTop is 0, and the browser stays
// there by itself. While the reader is elsewhere, new lines wait, so that nothing moves.
function drawLines(toEnd = false) {
	const [log, list] = [$("log"), $("lines")];
	const waited = !$("newer").hidden && !toEnd;
	if (toEnd) log.scrollTop = 0;
	if (fresh.length > 0 && log.scrollTop > -40) {
		const rows = fresh.slice(-maxRows).map(drawItem);
		fresh = [];
		list.append(...rows);
		while (list.childElementCount > maxRows) list.firstElementChild.remove();
		if (waited) rows[0].scrollIntoView({ block: "end" }); // read on where you were
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
	const takeBack = () => {
		forget(message);
		putInBox([text, $("text").value].filter(Boolean).join("\n"));
	};
	alert.append(button("Send again", sendAgain), " ", button("Take back", takeBack));
	row.append(alert);
	return row;
}

// drawPeople keeps the rows of those who stay, so that no reader loses the place.
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

// thisSecond makes the last of the rates that of the current second. (Timers may run late.)
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
	gone: "Server gone, retry",
};

function show(newState) {
	state = newState;
	$("state").dataset.state = state;
	put("state-words", stateWords[state]);
	put("state-when", "");
}

// notify puts a sentence above the conversation, with a way out of it.
function notify(words, wayOut = "") {
	if ($("notice-words").textContent === words) return; // and not said aloud again
	put("notice-words", words);
	put("again", wayOut);
	$("notice").hidden = !words;
}

on($("again"), "click", connect);

// What others did is told to screen readers now and then, in few words.
let sinceSummary = [];

function summarise() {
	const [first, second] = sinceSummary;
	const gap = sinceSummary.find(({ kind }) => kind === "gap")?.text ?? "";
	if (first?.kind === "said" && !second) put("summary", `${first.name}: ${first.text}`);
	else put("summary", `${gap} ${inShort(sinceSummary)}`);
	sinceSummary = [];
}

let unread = 0; // what was said while nobody looked

function drawTitle(nowUnread) {
	unread = nowUnread;
	const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
	document.title = me ? `${count}${me} · Lobby` : "Lobby";
}

// --- How we come and go ---

// Characters that only shape what stands before them are allowed.
const shaping = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{e0020}-\u{e007f}]/gu;
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{NChar}\p{DI}\u2800]/u;

const nameInBox = () => $("name").value.trim().normalize("NFC");

// problemWithName says why the server would refuse the name in the box, or "".
function problemWithName() {
	const name = nameInBox();
	const { length } = [...name];
	if (/[\s/]/.test(name)) return "A name can't have a space or a slash in it.";
	if (unseen.test(name.replace(shaping, ""))) return "A name can't have invisible parts.";
	if (length > 64) return `A name has at most 64 characters. This one has ${length}.`;
	return /^\.{0,2}$/.test(name) ? "A name needs a character that is no dot." : "";
}

async function join(name) {
	me = name;
	history.replaceState({ name, isHere: true }, ""); // which a reload keeps
	show("waiting");
	drawPlace();
	await takeSlot();
	isFull = false;
	drawPlace();
	connect();
}

// leave ends our stream. The others hear of it when the server is sure that we don't come back.
function leave(words = "") {
	disconnect();
	giveSlotBack();
	history.replaceState({ name: me }, "");
	me = lastId = listId = cameAfter = "";
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

// drawPlace shows where we are: at the door, waiting for a slot, or in the room.
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

// On every load, and when the browser brings the page back as it was left.
on(window, "pageshow", () => {
	$("curl").lastElementChild.textContent = `curl -N ${location.origin}/chat`;
	const name = new URLSearchParams(location.hash.slice(1)).get("name"); // from the link above
	const kept = history.state ?? { name };
	$("name").value = kept.name;
	if (kept.isHere) join(kept.name);
	else drawPlace();
});

// A page that the browser keeps for the way back keeps nothing that others need.
on(window, "pagehide", () => {
	disconnect();
	giveSlotBack();
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

setInterval(summarise, 5000);
drawRates();
