// The script of the demo page, to be read from top to bottom. The list of present users
// stays exact without polling: the header Last-Event-ID of GET /users names the last event that the
// list reflects, and the stream continues from there.

const $ = (id) => document.getElementById(id);
const put = (id, text) => ($(id).textContent = text);
const on = (target, type, handle) => target.addEventListener(type, handle);
const inWords = (n) => n.toLocaleString("en");

let [tabStorage, sharedStorage] = [{}, {}];
try {
	[tabStorage, sharedStorage] = [sessionStorage, localStorage];
} catch {} // the browser forbids them

const maxRows = 500; // in the conversation
const maxFresh = 400; // drawn at once, so that some older rows remain
const maxNames = 200; // in the list; the search box finds the others
const maxPast = 100; // events shown on joining

// --- What the page knows ---

let me = ""; // the user's name in the room
let lastId = ""; // of the last event received
let joinedAfter = ""; // the last id before the user joined
let people = new Set(); // the present users
let peopleChanged = false;

let listId = ""; // of the last event that the list reflects; "" while it is being fetched
let pendingPresence = []; // events received meanwhile

// An id is EPOCH-SEQ.
function parse(id) {
	const dash = id.lastIndexOf("-");
	return { epoch: id.slice(0, dash), seq: Number(id.slice(dash + 1)) };
}

// isUpTo reports whether id is otherId or earlier in its epoch.
function isUpTo(id, otherId) {
	const [event, other] = [parse(id), parse(otherId)];
	return event.epoch === other.epoch && event.seq <= other.seq;
}

// --- How it stays connected ---

let source = null; // the stream
let state = ""; // of stateWords
let failures = 0; // since it was last live
let attempt = 0; // results of earlier ones are ignored

let awaited = ""; // the id of an event that the stream must still bring
let timer = 0; // for that event, the stream, or the next attempt

// connect fetches the list and resumes the stream from the last event. The first time, it starts
// earlier, to show what was said before the user joined.
async function connect() {
	disconnect();
	show(lastId ? "reconnecting" : "connecting");
	if (!(await fetchPeople())) return;
	const { epoch, seq } = parse(listId);
	if (!lastId) {
		joinedAfter = listId;
		lastId = `${epoch}-${Math.max(0, seq - maxPast)}`;
	}
	expect(people.has(me) ? listId : `${epoch}-${seq + 1}`); // or the own arrival
	source = openStream();
	waitAtMost(5);
}

function disconnect() {
	attempt++;
	stopWaiting();
	source?.close();
	source = null;
}

// reconnect: the connection may have died silently.
function reconnect() {
	if (me && state !== "waiting") connect();
}

const chatPath = () => `chat/${encodeURIComponent(me)}`;
const streamPath = () => `${chatPath()}?lastEventId=${lastId}`;

// openStream ignores events of other streams: when WebKit restores a page, it reopens even those
// that the page had closed.
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

// timedOut treats a live stream as dead, and gives a new one more time.
function timedOut() {
	stopWaiting();
	if (state === "live") return connect();
	const words = "The server responds, but its event stream does not arrive. " +
		"A proxy or antivirus may be buffering it.";
	notify(words, "Try now");
	timer = setTimeout(() => tryLater(new Error(words)), 30_000);
}

// advanceTo: the stream has brought all up to an event.
function advanceTo(id) {
	lastId = id;
	stopWaiting();
	expect(awaited);
	if (state !== "live") goLive();
	if (awaited) waitAtMost(state === "live" ? 3 : 5);
}

function goLive() {
	if (awaited || source.readyState !== EventSource.OPEN) return;
	stopWaiting();
	failures = 0;
	show("live");
	notify("");
}

// fetchPeople returns false if another attempt has begun or is scheduled.
async function fetchPeople() {
	const thisAttempt = ++attempt;
	listId = "";
	pendingPresence = [];
	try {
		const { users, id } = await listUsers();
		if (thisAttempt !== attempt) return false;
		people = new Set(users);
		peopleChanged = true;
		listId = id;
		pendingPresence.forEach(apply);
		redraw();
		return true;
	} catch (error) {
		if (thisAttempt === attempt) tryLater(error);
		return false;
	}
}

async function listUsers() {
	const response = await request("users", { headers: { Accept: "application/json" } });
	const { users } = await response.json().catch(cutOff);
	return { users, id: response.headers.get("Last-Event-ID") };
}

// lost lets the browser resume the stream once. After that, or an error such as 503, the page
// reconnects.
async function lost() {
	stopWaiting();
	if (source.readyState === EventSource.CONNECTING && failures === 0) {
		failures = 1;
		show("reconnecting");
		waitAtMost(8);
		return;
	}
	const refused = source.readyState === EventSource.CLOSED;
	disconnect();
	const thisAttempt = attempt;
	let reason = new Error("The connection was lost.");
	if (refused) {
		// An EventSource does not reveal the response.
		await request(streamPath()).then(({ body }) => body.cancel(), (error) => (reason = error));
	}
	if (thisAttempt === attempt) tryLater(reason);
}

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

// request throws an error with a sentence for the user if it fails.
async function request(path, options) {
	const signal = AbortSignal.timeout(10_000);
	const response = await fetch(path, { cache: "no-store", signal, ...options }).catch(cutOff);
	if (response.ok) return response;
	const hasWords = response.headers.get("Content-Type")?.startsWith("text/plain");
	const words = hasWords && (await response.text().catch(cutOff));
	throw Object.assign(new Error(words || `The server responded with ${response.status}.`), {
		status: response.status,
		retryAfter: Number(response.headers.get("Retry-After")),
	});
}

// cutOff is for a missing or incomplete response.
function cutOff({ name }) {
	const words = name === "TimeoutError" ? "does not respond." : "can't be reached.";
	throw Object.assign(new Error(`The server ${words}`), { gone: true });
}

// --- How tabs share the connections ---

// Over HTTP/1.1 a browser opens six connections to a host. Each stream occupies one, so at most
// five tabs open streams, and all share the sixth. A slot is a lock that tabs compete for. (Over
// plain http, browsers offer locks only at loopback addresses.)
const slots = [1, 2, 3, 4, 5].map((n) => `slot ${n}`);
const protocol = performance.getEntriesByType("navigation")[0]?.nextHopProtocol;
const needsSlot = navigator.locks && !/h[23]/.test(protocol);

let releaseSlot = () => {}; // or stops waiting for one
let isFull = false; // other tabs hold all slots

function takeSlot() {
	releaseSlot();
	if (!needsSlot) return Promise.resolve();
	return new Promise((taken) => {
		const others = new AbortController();
		const { signal } = others;
		releaseSlot = () => others.abort();
		const take = () => {
			others.abort();
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
	const isNew = !isUpTo(id, listId);
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
	if (id === joinedAfter) write({ kind: "mark", text: "↑ before you joined" });
	advanceTo(id);
}

function receiveGap({ lastEventId: id }) {
	const text = "Some messages are missing: the server no longer has them.";
	if (isUpTo(lastId, joinedAfter)) joinedAfter = id; // a newcomer has missed nothing
	else write({ kind: "gap", text });
	if (parse(id).epoch !== parse(awaited).epoch) awaited = "";
	outbox = outbox.filter((message) => !message.id || isUpTo(id, message.id));
	advanceTo(id);
	fetchPeople();
}

// apply updates the list unless it already reflects the event.
function apply({ id, name, kind }) {
	if (!isUpTo(listId, id) || id === listId) return;
	if (name === leaving) leaving = "";
	if (kind === "joined") people.add(name);
	else people.delete(name);
	peopleChanged = true;
}

const maxCrowd = 1000; // lines in one crowd
let latest = {}; // the last item
let lastMinute = 0; // of the last message
let lastDay = ""; // of the last line
let fresh = []; // items that are new or have grown
let leftOut = 0; // items that will not be drawn

let unread = 0; // messages while the page was hidden
let mentionedBy = ""; // in them
let announceable = []; // lines of others since the last announcement

// write adds a line to the conversation. A crowd is an item of several arrivals and departures.
function write(line) {
	const { kind, name, text, time } = line;
	const day = time && new Date(time).toDateString();
	if (day && lastDay && day !== lastDay) {
		lastDay = day;
		write({ kind: "mark", text: new Date(time).toLocaleDateString([], { dateStyle: "full" }) });
	}
	lastDay = day || lastDay;
	const isSaid = kind === "said";
	const isNews = name !== me && !line.isPast;
	if (isSaid && isNews && document.hidden) {
		if (!unread) {
			$("lines").querySelector(".unread")?.remove();
			write({ kind: "mark unread", text: "↓ new since you looked away" });
		}
		drawTitle(Math.min(unread + 1, 100), mention.test(text) ? name : mentionedBy);
	}
	if (!isSaid && name && latest.lines?.length < maxCrowd) {
		latest.lines.push(line);
		if (fresh.at(-1) !== latest) fresh.push(latest);
	} else {
		const minute = Math.floor(time / 60_000);
		line.beginsMinute = isSaid && minute > 0 && minute !== lastMinute;
		line.follows = isSaid && latest.name === name && !line.beginsMinute;
		if (isSaid) lastMinute = minute;
		latest = !isSaid && name ? { lines: [line] } : line;
		fresh.push(latest);
		if (fresh.length > 2 * maxRows) leftOut += fresh.splice(0, maxRows).length;
	}
	redraw();
	if (isNews && kind !== "mark") announceable.push(line);
}

// --- How messages are sent ---

const [maxBytes, maxLines] = [4096, 32]; // of a message

// The user's messages that the stream has not brought yet: waiting, sending, sent or failed.
let outbox = [];
let isSending = false;

function add(text) {
	const row = element("li", "line said mine unsent");
	row.append(textTag(text, true));
	$("outbox").append(row);
	const message = { text, state: "waiting", row };
	outbox.push(message);
	return message;
}

function say(text) {
	add(text);
	sendAll();
}

function forget(message) {
	outbox = outbox.filter((other) => other !== message);
	redraw();
}

// sendAll sends one message at a time, to keep them in order.
async function sendAll() {
	if (isSending) return;
	isSending = true;
	for (let message; (message = outbox.find(({ state }) => state === "waiting")); ) {
		Object.assign(message, { state: "sending", after: lastId });
		try {
			const response = await request(chatPath(), { method: "POST", body: message.text });
			sent(message, response.headers.get("Last-Event-ID"));
		} catch (error) {
			rejected(message, error);
		}
	}
	isSending = false;
}

function sent(message, id) {
	Object.assign(message, { state: "sent", id });
	if (isUpTo(id, lastId)) return forget(message);
	if (!outbox.includes(message)) return;
	expect(id);
	if (state === "live") waitAtMost(3);
}

function rejected(message, { message: reason, gone, status }) {
	fail(message, `${gone || status === 504 ? "May not have been" : "Not"} sent. ${reason} `);
	if (!gone) return;
	for (const other of outbox) if (other.state === "waiting") fail(other, `Not sent. ${reason} `);
	if (state === "live") connect();
}

function fail(message, error) {
	Object.assign(message, { state: "failed", error });
	const alert = element("p", "error", error);
	alert.role = "alert";
	const sendAgain = button("Send again", () => {
		forget(message);
		say(message.text);
		$("text").focus();
	});
	const edit = button("Edit", () => {
		forget(message);
		putInBox([message.text, $("text").value].filter(Boolean).join("\n"));
	});
	alert.append(sendAgain, " ", edit);
	message.row.append(alert);
}

// confirm: the stream has brought a message, perhaps before the response.
function confirm(id, text) {
	const isSame = ({ text: other, state, after }) =>
		other === text && state !== "waiting" && !isUpTo(id, after);
	forget(outbox.find((message) => message.id === id) ?? outbox.find(isSame));
}

// The draft and the unsent messages survive a reload.
function restoreUnsent() {
	const { draft, messages = [] } = JSON.parse(tabStorage.unsent ?? "{}");
	for (const { text, state, after, error } of messages) {
		const words = state === "waiting" ? "Not" : "May not have been";
		fail(Object.assign(add(text), { after }), error ?? `${words} sent. The page was reloaded. `);
	}
	if (draft) putInBox(draft);
}

const textInBox = () => $("text").value.replace(/\r\n?|[\u2028\u2029]/g, "\n").trimEnd();
const bytesLeft = () => maxBytes - new TextEncoder().encode(textInBox()).length;

function problemWithText() {
	const lines = textInBox().split("\n").length;
	if (bytesLeft() < 0) return `This is ${inWords(-bytesLeft())} bytes too long for one message.`;
	if (lines > maxLines) return `This has ${lines} lines; a message has at most ${maxLines}.`;
	return "";
}

function boxChanged() {
	const [box, left] = [$("text"), bytesLeft()];
	const room = left < 0 ? `${inWords(-left)} bytes too long` : `${inWords(left)} bytes left`;
	put("text-left", left < maxBytes / 4 ? room : "");
	if ($("send-error").textContent) put("send-error", problemWithText());
	if (CSS.supports("field-sizing", "content")) return;
	box.style.height = "auto";
	box.style.height = `${box.scrollHeight + 2}px`; // its border
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

let frame = 0; // the requested animation frame
let drawn = 0; // when the last one was drawn

// redraw draws soon, at most 20 times a second.
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

// nameTag gives similar names (user1, user2) hues that are a golden section apart.
function nameTag(name) {
	const tag = element("bdi", "name", name);
	let hash = 0;
	for (const character of name) hash = Math.imul(hash + character.codePointAt(0), 0x9e3779b1);
	tag.style.setProperty("--hue", ((hash >>> 0) / 2 ** 32) * 360);
	return tag;
}

const url = /(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]}])/i; // no punctuation at its end
let mention; // matches the user's name

// textTag links URLs, and marks the user's name.
function textTag(text, isMine) {
	const tag = element("p", "text");
	tag.dir = "auto";
	text.split(url).forEach((part, i) => {
		if (i % 2) {
			const link = element("a", "", part);
			Object.assign(link, { href: part, target: "_blank", rel: "noopener noreferrer nofollow" });
			tag.append(link);
		} else {
			const parts = isMine ? [part] : part.split(mention);
			tag.append(...parts.map((word, j) => (j % 2 ? element("mark", "", word) : word)));
		}
	});
	return tag;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" }).format;

// The time is unknown if the page was not connected then.
function lineTag(tag, line) {
	const { kind, name, text, time, isPast, beginsMinute, follows } = line;
	const isMine = name === me;
	const row = element(tag, `line ${kind}`);
	const classes = { mine: isMine, past: isPast, timed: beginsMinute, follows };
	for (const [name, holds] of Object.entries(classes)) row.classList.toggle(name, Boolean(holds));
	row.line = line;
	if (name) row.append(nameTag(name));
	if (name && !text) row.append(` ${kind}`);
	if (time) {
		const shown = element("time", "", clock(time));
		shown.title = new Date(time).toLocaleString();
		row.append(shown);
	}
	if (text) row.append(name ? textTag(text, isMine) : text);
	return row;
}

function sentence({ kind, name, text, time }, said = text) {
	if (!name) return text;
	return text ? `${name}${time ? ` ${clock(time)}` : ""}: ${said}` : `${name} ${kind}`;
}

function summarize(lines) {
	const count = ([kind, verb]) => {
		const { size } = new Set(lines.filter((line) => line.kind === kind).map(({ name }) => name));
		return size && `${inWords(size)} ${size === 1 ? "person" : "people"} ${verb}`;
	};
	const verbs = [["joined", "joined"], ["left", "left"], ["said", "spoke"]];
	return verbs.map(count).filter(Boolean).join(", ");
}

// drawItem keeps the row of a crowd: it may be in use.
function drawItem(item) {
	const { lines } = item;
	if (!lines) return lineTag("li", item);
	let box = (item.row ??= element("li", ""));
	if (lines.length > 3) {
		let details = box.querySelector("details");
		if (!details) {
			details = element("details", "line crowd");
			details.append(element("summary", ""), element("div", ""));
			box.replaceChildren(details);
			on(details, "toggle", () => drawItem(item));
		}
		const text = (details.firstChild.textContent = summarize(lines));
		details.line = { text };
		box = details.lastChild;
	}
	if (box.parentNode?.open === false) box.replaceChildren();
	else box.append(...lines.slice(box.childElementCount).map((line) => lineTag("p", line)));
	return item.row;
}

let isHeldBack = false;

// The log is laid out from its end (column-reverse), where scrollTop is 0. While the user is
// elsewhere, new lines are held back, so that nothing moves.
function drawLines(toEnd = false) {
	const [log, list] = [$("log"), $("lines")];
	if (toEnd) log.scrollTop = 0;
	if (fresh.length > 0 && log.scrollTop > -40) {
		leftOut += fresh.splice(0, fresh.length - maxFresh).length;
		const rows = fresh.map(drawItem);
		const words = `${inWords(leftOut)} more lines are not shown.`;
		if (leftOut) rows.unshift(lineTag("li", { kind: "gap", text: words }));
		[fresh, leftOut] = [[], 0];
		list.append(...rows.filter((row) => !row.isConnected));
		while (list.childElementCount > maxRows) list.firstElementChild.remove();
		if (isHeldBack && !toEnd) rows[0].scrollIntoView({ block: "end" }); // go on reading there
		else log.scrollTop = 0;
	}
	const unsent = outbox.map(({ row }) => row);
	for (const row of [...$("outbox").children]) if (!unsent.includes(row)) row.remove();
	isHeldBack = fresh.length > 0;
	$("newer").hidden = !isHeldBack && log.scrollTop > -40;
	put("newer", isHeldBack ? `${inWords(fresh.length + leftOut)} new ↓` : "Newest ↓");
}

on($("log"), "scroll", redraw);
on($("newer"), "click", () => {
	drawLines(true);
	$("log").focus();
});

on($("log"), "click", ({ target }) => target.closest(".line")?.classList.toggle("touched"));

// Copied lines read as a chat.
on($("log"), "copy", (event) => {
	const selection = getSelection();
	if (selection.isCollapsed) return;
	const range = selection.getRangeAt(0);
	const selected = (node) => {
		const part = document.createRange();
		part.selectNodeContents(node);
		const { startContainer: start, endContainer: end } = range;
		if (node.contains(start)) part.setStart(start, range.startOffset);
		if (node.contains(end)) part.setEnd(end, range.endOffset);
		return range.intersectsNode(node) ? part.toString() : "";
	};
	const said = (row) => selected(row.querySelector(".text") ?? row);
	const rows = [...$("lines").querySelectorAll(".line")].filter((row) => row.line && said(row));
	const [first] = rows;
	if (!first || range.startContainer === range.endContainer) return;
	const isOneText = rows.length === 1 && (first.matches(".follows") || !selected(first.firstChild));
	const words = rows.map((row) => sentence(row.line, said(row)));
	event.clipboardData.setData("text/plain", isOneText ? said(first) : words.join("\n"));
	event.preventDefault();
});

const { compare } = new Intl.Collator();
const inOrder = (a, b) => compare(a, b) || (a < b ? -1 : 1);
let leaving = ""; // the user's previous name

function drawPeople() {
	peopleChanged = false;
	const wanted = $("find").value.trim().toLowerCase();
	const isWanted = (name) => name.toLowerCase().includes(wanted);
	let [names, found, last] = [[], 0, ""];
	for (const name of people) {
		if (!isWanted(name)) continue;
		found++;
		// Sorting all would take too long.
		if (name === me || (last && inOrder(name, last) > 0)) continue;
		if (names.push(name) < 2 * maxNames) continue;
		names = names.sort(inOrder).slice(0, maxNames);
		last = names.at(-1);
	}
	names.sort(inOrder);
	if (people.has(me) && isWanted(me)) names.unshift(me);
	const shown = new Set(names.slice(0, maxNames));
	for (const row of [...$("people").children]) if (!shown.has(row.textContent)) row.remove();
	let next = $("people").firstElementChild;
	for (const name of shown) {
		let row = next;
		if (row?.textContent === name) next = row.nextElementSibling;
		else {
			row = element("li", "");
			row.append(nameTag(name));
			$("people").insertBefore(row, next);
		}
		row.className = name === me ? "mine" : name === leaving ? "leaving" : "";
	}
	const others = found - shown.size;
	const words = wanted && !found ? "Nobody matches." : "";
	put("others", others > 0 ? `and ${inWords(others)} more` : words);
	put("count", inWords(people.size));
	$("find-label").hidden = people.size <= 20 && !wanted;
}

on($("find"), "input", drawPeople);

// rates counts the events in each of the last 60 seconds and in this one.
const rates = Array(61).fill(0);
let second = 0;

// thisSecond makes the last rate that of this second: timers may run late.
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
	waiting: "Waiting",
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

function notify(words, remedy = "") {
	if ($("notice-words").textContent === words) return;
	put("notice-words", words);
	put("again", remedy);
	$("notice").hidden = !words;
}

on($("again"), "click", connect);

// announce is for screen readers.
function announce() {
	const gap = announceable.find(({ kind }) => kind === "gap")?.text ?? "";
	const brief = announceable.map((line) => sentence({ ...line, time: 0 })).join("\n");
	put("announcement", announceable.length < 5 ? brief : `${gap} ${summarize(announceable)}`);
	announceable = [];
}

function drawTitle(nowUnread, nowMentionedBy = "") {
	[unread, mentionedBy] = [nowUnread, nowMentionedBy];
	const count = unread > 0 ? `(${unread > 99 ? "99+" : unread}) ` : "";
	const words = mentionedBy ? `${mentionedBy} mentions you` : me;
	document.title = me ? `${count}${words} · Lobby` : "Lobby";
}

// --- How the user joins and leaves ---

// Characters that modify the one before them are allowed.
const shaping = /[\p{M}\u200c\u200d\ufe00-\ufe0f\u{e0020}-\u{e007f}]/gu;
const unseen = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{NChar}\p{DI}\u2800]/u;

const nameInBox = () => $("name").value.trim().normalize("NFC");

function problemWith(name) {
	const { length } = [...name];
	if (/[\s/]/.test(name)) return "A name can't contain spaces or slashes.";
	if (unseen.test(name.replace(shaping, ""))) return "A name can't contain invisible characters.";
	if (length > 64) return `A name has at most 64 characters; this one has ${length}.`;
	return /^\.{0,2}$/.test(name) ? "A name can't be empty, “.” or “..”." : "";
}

function drawNameError() {
	const name = nameInBox();
	put("name-error", problemWith(name));
	const better = name.replace(/[\s/]+/g, "-");
	if (better === name || problemWith(better)) return;
	$("name-error").append(" ", button(`Join as ${better}`, () => ($("name").value = better)));
}

let checkTimer = 0;

function checkName() {
	clearTimeout(checkTimer);
	checkTimer = setTimeout(async () => {
		const name = nameInBox();
		put("name-note", "");
		if (!name || me || problemWith(name)) return;
		const { users } = await listUsers().catch(() => ({ users: [] }));
		const words = `${name} is already present. If you join, you share the name.`;
		if (name === nameInBox() && users.includes(name)) put("name-note", words);
	}, 300);
}

const remember = () => history.replaceState({ name: me, isInRoom: true }, "");

async function join(name) {
	me = sharedStorage.name = name;
	const escaped = me.replace(/[$()*+.?[\\\]^{|}]/g, "\\$&");
	mention = new RegExp(`(?<![\\p{L}\\p{N}])(${escaped})(?![\\p{L}\\p{N}])`, "iu");
	remember();
	show("waiting");
	drawPlace();
	await takeSlot();
	isFull = false;
	drawPlace();
	connect();
}

function leave(words = "") {
	disconnect();
	releaseSlot();
	history.replaceState({ name: me }, "");
	leaving = me;
	setTimeout(() => {
		leaving = "";
		drawPeople();
	}, 10_000);
	me = lastId = listId = joinedAfter = "";
	failures = leftOut = 0;
	isFull = false;
	people = new Set();
	[latest, fresh, outbox, announceable] = [{}, [], [], []];
	for (const id of ["lines", "outbox", "people"]) $(id).replaceChildren();
	put("name-error", words);
	put("send-error", "");
	notify("");
	drawPlace();
}

function drawPlace() {
	drawTitle(0);
	put("my-name", me);
	$("join").hidden = me !== "";
	$("full").hidden = !isFull;
	$("room").hidden = !me || isFull;
	for (const id of ["state", "you"]) $(id).hidden = !me;
	const { hostname } = location;
	const [, number = 1] = hostname.match(/^(\d+)\.localhost$/) ?? [];
	const link = $("elsewhere"); // another name has six more connections
	link.href = `#name=${encodeURIComponent(me)}`;
	link.hostname = `${Number(number) + 1}.localhost`;
	link.textContent = link.host;
	link.parentElement.hidden = !/^127\.|^\[::1\]$|^(.*\.)?localhost$/.test(hostname);
	$(isFull ? "elsewhere" : me ? "text" : "name").focus();
}

on($("join"), "submit", (event) => {
	event.preventDefault();
	drawNameError();
	if (!problemWith(nameInBox())) join(nameInBox());
});

on($("name"), "input", () => {
	if ($("name-error").textContent) drawNameError();
	checkName();
});

on($("leave"), "click", () => leave());

// On a load, and on a return from the back/forward cache.
on(window, "pageshow", ({ persisted }) => {
	$("curl").lastElementChild.textContent = `curl -N ${new URL("chat", location)}`;
	const name = new URLSearchParams(location.hash.slice(1)).get("name");
	const kept = history.state ?? { name };
	const box = $("name");
	const isHalfTyped = box.value;
	box.value ||= kept.name ?? sharedStorage.name ?? "";
	if (kept.isInRoom) {
		join(kept.name);
		if (!persisted) restoreUnsent();
	} else {
		drawPlace();
		if (!isHalfTyped) box.select();
		checkName();
	}
});

on(window, "pagehide", () => {
	disconnect();
	releaseSlot();
	const messages = outbox.filter(({ state }) => state !== "sent");
	tabStorage.unsent = JSON.stringify({ draft: $("text").value, messages });
});

on(window, "hashchange", () => me && remember());

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
	// DELETE /users/NAME does not end the stream.
	notify(people.has(me) ? "" : "You are no longer in the chat.", "Join again");
}, 1000);

setInterval(announce, 5000);
drawRates();
