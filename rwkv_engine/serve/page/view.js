// One message as an element, and the small things of the page that are built by hand.

import { render } from "./markdown.js";
import { siblings } from "./tree.js";

/** An element with attributes, texts and elements. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const button = (label, onclick, told = label, attributes = {}) =>
  make("button", { type: "button", "aria-label": told, onclick, ...attributes }, label);

/** The element of a message. `actions` are {turn, retry, edit}, called with its number. */
export function messageElement(conversation, number, actions) {
  const node = conversation.nodes[number];
  const user = node.role === "user";
  const parts = [make("h2", { class: "who" }, user ? "You" : node.model || "Model")];
  if (!user) parts.push(make("details", { class: "thought" }, make("summary", {}, "Thinking"), make("div", { class: "text" })));
  parts.push(make("div", { class: "text said" }), make("p", { class: "problem", hidden: true }));
  const tools = make("div", { class: "tools row" });
  const { index, all } = siblings(conversation, number);
  if (all.length > 1) {
    const go = (step) => () => actions.turn(number, step);
    tools.append(
      button("←", go(-1), "Previous version", { class: "before", disabled: index === 0 }),
      make("span", { class: "place" }, make("span", { class: "hidden" }, "Version "), `${index + 1}/${all.length}`),
      button("→", go(1), "Next version", { class: "after", disabled: index === all.length - 1 }),
    );
  }
  if (user) tools.append(button("Edit", () => actions.edit(number), "Edit this message", { class: "edit" }));
  else tools.append(button("Retry", () => actions.retry(number), "Retry this answer", { class: "retry" }));
  if (navigator.clipboard) tools.append(button("Copy", () => navigator.clipboard.writeText(node.content), "Copy this message"));
  tools.append(make("span", { class: "speed" }));
  const element = make("article", { class: node.role, "data-number": String(number) }, ...parts, tools);
  update(element, node);
  return element;
}

/** Show what a message holds now. */
export function update(element, node) {
  const said = element.querySelector(".said");
  if (node.role === "user") {
    said.textContent = node.content;
    return;
  }
  render(said, node.content, document);
  const thought = element.querySelector(".thought");
  thought.hidden = !node.thought;
  thought.lastElementChild.textContent = node.thought ?? "";
  const problem = element.querySelector(".problem");
  problem.textContent = node.error ?? "";
  problem.hidden = !node.error;
  element.querySelector(".speed").textContent = speed(node);
}

const REASONS = { length: "cut at the most tokens", stopped: "stopped" };

/** How fast an answer was written, and why it ended where that is not plain. */
export function speed({ tokens, seconds, reason }) {
  const parts = [];
  // what comes all at once has no speed
  if (tokens > 1 && seconds > 0.05) parts.push(`${tokens} tokens, ${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  if (REASONS[reason]) parts.push(REASONS[reason]);
  return parts.join(" · ");
}

/** Turn a message into a field to edit it. `save` is called with the new text, `cancel` without. */
export function editor(element, text, save, cancel) {
  const field = make("textarea", { "aria-label": "Edit this message", rows: "4" });
  field.value = text;
  const done = () => field.value.trim() && save(field.value);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      done();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    }
  });
  const row = make("div", { class: "tools row" }, button("Send", done, "Send the edited message"), button("Cancel", cancel));
  element.replaceChildren(field, row);
  field.focus();
}

/** The list of conversations. `actions` are {show, remove, save}. */
export function conversationItems(conversations, current, title, actions) {
  return conversations.map((one) => {
    const name = title(one);
    const shown = { class: "name", "aria-current": String(one === current) };
    return make(
      "li",
      {},
      button(name, () => actions.show(one), name, shown),
      button("↓", () => actions.save(one), `Export: ${name}`, { title: "Export" }),
      button("✕", () => actions.remove(one), `Delete: ${name}`, { title: "Delete" }),
    );
  });
}

/** Give a text to the person as a file. */
export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
