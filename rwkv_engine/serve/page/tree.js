// A conversation as a tree. Nodes lie in a list and name their parent by its place in it, which is always
// smaller than their own, so that no file that is imported can hold a circle. Node 0 is the root.

const TEXTS = ["content", "thought", "model", "reason", "error"];
const NUMBERS = ["tokens", "seconds"];
const FORMAT = "rwkv-conversations";

/** A conversation without messages. */
export function newConversation(settings = {}) {
  const now = Date.now();
  return { id: newId(), changed: now, settings: { ...settings }, nodes: [root()] };
}

// not randomUUID: browsers have that only over https and on this machine
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
const root = () => ({ parent: -1, role: "root", chosen: -1 });

/** Add a message behind `parent` and choose its branch; the message's number. */
export function add(conversation, parent, message) {
  const { nodes } = conversation;
  nodes.push({ ...message, parent, chosen: -1 });
  nodes[parent].chosen = nodes.length - 1;
  conversation.changed = Date.now();
  return nodes.length - 1;
}

/** The numbers of the messages on the chosen branch, from the first. */
export function path({ nodes }) {
  const found = [];
  for (let at = nodes[0].chosen; at >= 0; at = nodes[at].chosen) found.push(at);
  return found;
}

/** The numbers of the messages up to and with `number`. */
export function pathTo({ nodes }, number) {
  const found = [];
  for (let at = number; at > 0; at = nodes[at].parent) found.unshift(at);
  return found;
}

/** Which of how many alternatives a message is: {index, all}. */
export function siblings({ nodes }, number) {
  const all = [];
  nodes.forEach((node, at) => node.parent === nodes[number].parent && all.push(at));
  return { index: all.indexOf(number), all };
}

/** Choose the alternative that is `step` further. */
export function turn(conversation, number, step) {
  const { index, all } = siblings(conversation, number);
  const other = all[Math.min(Math.max(index + step, 0), all.length - 1)];
  conversation.nodes[conversation.nodes[number].parent].chosen = other;
  return other;
}

/** What the conversation is called: its first words. */
export function title({ nodes }) {
  const first = nodes.find((node) => node.role === "user");
  const words = (first?.content ?? "").trim().replace(/\s+/g, " ");
  return words.length > 60 ? `${words.slice(0, 59)}…` : words || "New conversation";
}

/** The messages that the model reads to answer `number`. */
export function messages(conversation, number) {
  const system = conversation.settings.system?.trim();
  const told = pathTo(conversation, number).map((at) => conversation.nodes[at]);
  const said = told.filter((node) => node.role === "user" || node.content);
  const before = system ? [{ role: "system", content: system }] : [];
  return [...before, ...said.map(({ role, content }) => ({ role, content }))];
}

/** Conversations as the text of a file. */
export function exported(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/** The conversations of such a text, under new names. Only what is known is taken. Throws Error. */
export function imported(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== FORMAT || file.version !== 1 || !Array.isArray(file.conversations)) {
    throw new Error("This file was not exported by this page.");
  }
  return file.conversations.map(conversationOf);
}

function conversationOf(given) {
  const made = newConversation();
  if (Number.isFinite(given?.changed)) made.changed = given.changed;
  for (const [name, value] of Object.entries(given?.settings ?? {})) {
    if (/^[a-z_]{1,40}$/.test(name) && ["string", "number"].includes(typeof value)) made.settings[name] = value;
  }
  const nodes = given?.nodes;
  if (!Array.isArray(nodes) || !nodes.length) throw new Error("A conversation in this file has no messages.");
  made.nodes = nodes.map((node, at) => (at ? nodeOf(node, at) : root()));
  nodes.forEach((node, at) => {
    const fits = Number.isInteger(node?.chosen) && made.nodes[node.chosen]?.parent === at;
    made.nodes[at].chosen = fits ? node.chosen : made.nodes.findLastIndex((other) => other.parent === at);
  });
  return made;
}

function nodeOf(node, at) {
  const parent = node?.parent;
  const known = ["user", "assistant"].includes(node?.role) && typeof node.content === "string";
  if (!known || !Number.isInteger(parent) || parent < 0 || parent >= at) {
    throw new Error(`Message ${at} of a conversation in this file is damaged.`);
  }
  const made = { parent, role: node.role, chosen: -1 };
  for (const name of TEXTS) if (typeof node[name] === "string") made[name] = node[name];
  for (const name of NUMBERS) if (Number.isFinite(node[name])) made[name] = node[name];
  return made;
}
