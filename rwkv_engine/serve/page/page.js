// The page: what is shown, what is under way, and what the buttons do.

import { answer, ask, getKey, setKey } from "./stream.js";
import * as store from "./store.js";
import { add, exported, imported, messages, newConversation, path, title, turn } from "./tree.js";
import { conversationItems, download, editor, messageElement, update } from "./view.js";

const $ = (id) => document.getElementById(id);
const FIELDS = [...$("settings").querySelectorAll("[name]")];
const SAVE_EVERY = 2000; // milliseconds, while an answer is written

let conversations = [];
let current = newConversation();
let running = null; // the answer under way: {conversation, number, controller}

// --- showing

function show(conversation) {
  current = conversation;
  draw();
  for (const field of FIELDS) field.value = current.settings[field.name] ?? "";
  if (current.settings.model) chooseModel(current.settings.model);
  sideOpen(false);
  $("messages").scrollTop = $("messages").scrollHeight;
}

function draw() {
  const actions = { turn: other, retry, edit };
  $("messages").replaceChildren(...path(current).map((number) => messageElement(current, number, actions)));
  drawList();
  busy();
}

function drawList() {
  const name = title(current);
  $("title").textContent = name;
  document.title = `${name} · rwkv`;
  const actions = { show, remove, save: (one) => download("conversation.json", exported([one])) };
  $("conversations").replaceChildren(...conversationItems(conversations, current, title, actions));
}

function busy() {
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("messages").setAttribute("aria-busy", String(running !== null));
  for (const button of document.querySelectorAll(".retry, .edit")) button.disabled = running !== null;
}

/** The element of a message, where it is on the screen. */
const elementOf = (number) => $("messages").querySelector(`[data-number="${number}"]`);

function following(change) {
  const box = $("messages");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function notice(sentence) {
  $("notice").textContent = sentence;
}

function sideOpen(open) {
  document.body.classList.toggle("side", open);
  $("menu").setAttribute("aria-expanded", String(open));
}

// --- conversations

async function keep(conversation) {
  try {
    await store.put(conversation);
  } catch (error) {
    notice(`This conversation could not be kept in the browser: ${error.message}`);
  }
}

function fresh() {
  const { model, ...settings } = current.settings;
  show(newConversation(settings));
  $("input").focus();
}

async function remove(conversation) {
  if (!confirm(`Delete "${title(conversation)}"?`)) return;
  if (running?.conversation === conversation) running.controller.abort();
  conversation.deleted = true;
  conversations = conversations.filter((one) => one !== conversation);
  await store.remove(conversation.id);
  if (conversation === current) show(conversations[0] ?? newConversation());
  else drawList();
}

async function importFile(file) {
  notice("");
  try {
    const found = imported(await file.text());
    conversations.unshift(...found);
    await Promise.all(found.map(keep));
    if (found.length) show(found[0]);
    $("status").textContent = `Conversations imported: ${found.length}.`;
  } catch (error) {
    notice(error.message);
  }
}

// --- asking

function send() {
  const text = $("input").value;
  if (running || !text.trim()) return;
  $("input").value = "";
  say(path(current).at(-1) ?? 0, text);
}

/** A message of the person behind `parent`, and the answer to it. */
function say(parent, content) {
  if (!conversations.includes(current)) conversations.unshift(current);
  write(add(current, parent, { role: "user", content }));
}

function retry(number) {
  if (!running) write(current.nodes[number].parent);
}

function other(number, step) {
  const now = turn(current, number, step);
  draw();
  const [back, on] = [".before", ".after"].map((name) => elementOf(now).querySelector(name));
  ((step < 0 ? back.disabled : !on.disabled) ? on : back).focus(); // where it was, unless it leads nowhere
  keep(current);
}

function edit(number) {
  const node = current.nodes[number];
  const over = () => {
    draw();
    elementOf(number)?.querySelector(".edit").focus();
  };
  editor(elementOf(number), node.content, (text) => !running && say(node.parent, text), over);
}

/** What the settings ask of the server. */
function asked(conversation) {
  const body = {};
  for (const { name, type } of FIELDS) {
    const value = conversation.settings[name] ?? "";
    if (name !== "system" && value !== "") body[name] = type === "number" ? Number(value) : value;
  }
  return body;
}

/** Have the model answer message `parent`. */
async function write(parent) {
  notice("");
  const conversation = current;
  const model = $("model").value;
  const body = { ...asked(conversation), model, messages: messages(conversation, parent) };
  const number = add(conversation, parent, { role: "assistant", content: "", thought: "", model });
  const node = conversation.nodes[number];
  running = { conversation, number, controller: new AbortController() };
  draw();
  if (document.activeElement === document.body) $("stop").focus(); // what was pressed is gone
  $("messages").scrollTop = $("messages").scrollHeight;
  $("status").textContent = "The model is writing.";
  keep(conversation);
  try {
    await take(node, body);
  } catch (error) {
    if (error.name === "AbortError") node.reason = "stopped";
    else fail(node, error);
  }
  running = null;
  conversation.changed = Date.now();
  if (!conversation.deleted) keep(conversation);
  redraw(conversation, number);
  const stopFocused = document.activeElement === $("stop");
  busy();
  if (stopFocused) $("input").focus();
  $("status").textContent = node.error || `Answer: ${node.content}`;
}

/** Take an answer into a message, piece by piece. */
async function take(node, body) {
  const { conversation, number, controller } = running;
  let first = 0;
  let saved = performance.now();
  let frame = 0;
  for await (const piece of answer(body, controller.signal)) {
    const now = performance.now();
    if (piece.text || piece.thought) {
      first ||= now;
      node.content += piece.text;
      node.thought += piece.thought;
      node.tokens = (node.tokens ?? 0) + 1; // about: a piece may hold more; the end tells how many they were
      node.seconds = (now - first) / 1000;
    }
    if (piece.reason) node.reason = piece.reason;
    if (piece.tokens) node.tokens = piece.tokens;
    if (now - saved > SAVE_EVERY && !conversation.deleted) {
      saved = now;
      keep(conversation);
    }
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      redraw(conversation, number);
    });
  }
}

function redraw(conversation, number) {
  const element = conversation === current && elementOf(number);
  if (element) following(() => update(element, conversation.nodes[number]));
}

function fail(node, error) {
  node.error = error.message;
  node.reason = "error";
  if (error.status === 401) openSettings($("key"));
}

const stop = () => running?.controller.abort();

// --- settings

function openSettings(field = FIELDS[0]) {
  $("key").value = getKey();
  if (!$("settings").open) $("settings").showModal();
  field.focus();
}

function changed({ target }) {
  const { name, value } = target;
  if (!target.checkValidity()) return target.reportValidity();
  if (value === "") delete current.settings[name];
  else current.settings[name] = value;
  if (conversations.includes(current)) keep(current);
}

async function findModels() {
  try {
    const { data } = await (await ask("v1/models")).json();
    $("model").replaceChildren(...data.map(({ id }) => new Option(id, id)));
    if (current.settings.model) chooseModel(current.settings.model);
    notice("");
  } catch (error) {
    notice(error.message);
    if (error.status === 401) openSettings($("key"));
  }
}

function chooseModel(name) {
  if ([...$("model").options].some((option) => option.value === name)) $("model").value = name;
}

// --- beginning

function listen() {
  const on = (id, kind, run) => $(id).addEventListener(kind, run);
  on("menu", "click", () => sideOpen(!document.body.classList.contains("side")));
  on("new", "click", fresh);
  on("export", "click", () => download("conversations.json", exported(conversations)));
  on("import", "click", () => $("file").click());
  on("file", "change", async () => {
    if ($("file").files.length) await importFile($("file").files[0]);
    $("file").value = "";
  });
  on("send", "click", send);
  on("stop", "click", stop);
  on("input", "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("settings").open) stop();
  });
  on("model", "change", () => {
    current.settings.model = $("model").value;
    if (conversations.includes(current)) keep(current);
  });
  on("open-settings", "click", () => openSettings());
  on("close-settings", "click", () => $("settings").close());
  on("key", "change", () => {
    setKey($("key").value.trim());
    findModels();
  });
  for (const field of FIELDS) field.addEventListener("change", changed);
}

async function begin() {
  listen();
  const kept = await store.open();
  conversations = await store.all();
  show(conversations[0] ?? current);
  await findModels();
  if (!kept) notice("This browser keeps nothing for this page: export what you want to have later.");
  $("input").focus();
}

begin();
