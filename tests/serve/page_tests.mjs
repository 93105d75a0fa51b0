// Run by test_page.py, in a folder that holds copies of the page's modules.
import assert from "node:assert/strict";
import test from "node:test";
import { inline, parse, render, toDom } from "./markdown.js";
import { Events } from "./stream.js";
import * as tree from "./tree.js";

/** A document that knows elements and texts, and nothing that reads HTML. */
const fake = {
  createTextNode: (text) => ({ text }),
  createElement: (tag) => ({
    tag,
    attributes: {},
    childNodes: [],
    setAttribute(name, value) {
      this.attributes[name] = value;
    },
    appendChild(child) {
      this.childNodes.push(child);
    },
    replaceChild(made, old) {
      this.childNodes.splice(this.childNodes.indexOf(old), 1, made);
    },
    removeChild(old) {
      this.childNodes.splice(this.childNodes.indexOf(old), 1);
    },
  }),
};
const short = (node) => (typeof node === "string" ? node : `<${node.tag}>${node.children.map(short).join("")}</${node.tag}>`);
const html = (text) => parse(text).map(short).join("");
const words = (node) => node.text ?? node.childNodes.map(words).join("");

for (const [name, text, wanted] of [
  ["paragraphs", "a\nb\n\nc", "<p>a<br></br>b</p><p>c</p>"],
  ["headings", "## One ##\ntwo", "<h2>One</h2><p>two</p>"],
  ["emphasis", "**a** *b* __c__ _d_ ~~e~~ ***f***", "<p><strong>a</strong> <em>b</em> <strong>c</strong> <em>d</em> <del>e</del> <strong><em>f</em></strong></p>"],
  ["no emphasis", "snake_case_name 2 * 3 * 4 **open", "<p>snake_case_name 2 * 3 * 4 **open</p>"],
  ["escapes", "\\*a\\* \\`b", "<p>*a* `b</p>"],
  ["code spans", "`a*b*` `` c`d ``", "<p><code>a*b*</code> <code>c`d</code></p>"],
  ["fences", "```py\n<b>\n\n# x\n```\nend", "<pre><code><b>\n\n# x</code></pre><p>end</p>"],
  ["a fence that is not closed yet", "```\nx = 1", "<pre><code>x = 1</code></pre>"],
  ["lists in lists", "- a\n  - b\n  - c\n- d", "<ul><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ul>"],
  ["loose lists", "1. a\n\n2. b\n\n   more\n\nend", "<ol><li>a</li><li>b<p>more</p></li></ol><p>end</p>"],
  ["rules are no lists", "* * *\n---", "<hr></hr><hr></hr>"],
  ["quotes", "> a\n> > b", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote>"],
  ["tables", "a | b\n--|:-:\n1 | **2**", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody></table>"],
  ["HTML as text", "<img src=x onerror=alert(1)></script>", "<p><img src=x onerror=alert(1)></script></p>"],
]) {
  test(`markdown: ${name}`, () => assert.equal(html(text), wanted));
}

test("only web and mail addresses are links", () => {
  const links = (text) => inline(text).filter((node) => node.tag === "a").map((node) => node.href);
  assert.deepEqual(links("[a](https://e.org/x_(y)) and https://e.org/z."), ["https://e.org/x_(y)", "https://e.org/z"]);
  assert.deepEqual(links("![a](https://e.org/p.png)"), ["https://e.org/p.png"]);
  assert.deepEqual(links("[a](javascript:alert(1)) [b](data:text/html,x) [c](JAVASCRIPT:x) [d](//e.org)"), []);
});

test("every letter of hostile text is shown as text", () => {
  const hostile = '<img src=x onerror="alert(1)">\n\n# <svg onload=x>\n\n- </script><script>y</script>\n\n`<b>`';
  const element = fake.createElement("div");
  render(element, hostile, fake);
  const all = words(element);
  for (const part of ['<img src=x onerror="alert(1)">', "<svg onload=x>", "</script><script>y</script>", "<b>"]) {
    assert.ok(all.includes(part), part);
  }
  assert.throws(() => toDom({ tag: "script", children: [] }, fake));
});

test("rendering piece by piece ends in the same nodes, and keeps those that did not change", () => {
  const text = "# Title\n\nSome *words*.\n\n```\ncode\n```\n\n1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | 2 |";
  const grown = fake.createElement("div");
  for (let end = 1; end <= text.length; end += 1) {
    const first = grown.childNodes[0];
    render(grown, text.slice(0, end), fake);
    if (end > 12) assert.equal(grown.childNodes[0], first);
  }
  const once = fake.createElement("div");
  render(once, text, fake);
  assert.equal(JSON.stringify(grown), JSON.stringify(once));
});

test("long hostile text is read in time", () => {
  for (const part of ["*a ", "**", "[", "`", "``` ", "> ", "- ", "_a_", "|", "a|b\n-|-\n", "![](", "https://", "  - a\n", "~", "# "]) {
    const start = performance.now();
    parse(part.repeat(Math.ceil(30_000 / part.length)));
    parse(`${part.repeat(10_000)}\n`.repeat(2));
    assert.ok(performance.now() - start < 2000, `${part}: ${performance.now() - start} ms`);
  }
});

test("events are the same wherever the stream is cut", () => {
  const text = 'data: {"a":1}\r\n\r\n: comment\n\ndata: [DONE]\n\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const events = new Events();
    assert.deepEqual([...events.push(text.slice(0, cut)), ...events.push(text.slice(cut))], ['{"a":1}', "[DONE]"]);
  }
});

function conversation() {
  const made = tree.newConversation({ system: " Be brief. ", temperature: "0.5" });
  const ask = tree.add(made, 0, { role: "user", content: "Hello" });
  const one = tree.add(made, ask, { role: "assistant", content: "Hi" });
  const two = tree.add(made, ask, { role: "assistant", content: "Good day" });
  return { made, ask, one, two };
}

test("another answer is a branch, and the old one is a step away", () => {
  const { made, ask, one, two } = conversation();
  assert.deepEqual(tree.path(made), [ask, two]);
  assert.deepEqual(tree.siblings(made, two), { index: 1, all: [one, two] });
  const more = tree.add(made, two, { role: "user", content: "More" });
  assert.equal(tree.turn(made, two, -1), one);
  assert.deepEqual(tree.path(made), [ask, one]);
  assert.equal(tree.turn(made, one, -1), one);
  tree.turn(made, one, 1);
  assert.deepEqual(tree.path(made), [ask, two, more], "the branch goes on where it was left");
});

test("the model reads its own branch only", () => {
  const { made, two } = conversation();
  const more = tree.add(made, two, { role: "user", content: "More" });
  tree.add(made, more, { role: "assistant", content: "" });
  const said = tree.messages(made, more).map(({ role, content }) => `${role}: ${content}`);
  assert.deepEqual(said, ["system: Be brief.", "user: Hello", "assistant: Good day", "user: More"]);
  assert.equal(tree.title(made), "Hello");
});

test("what is exported comes back under another name", () => {
  const { made } = conversation();
  const [back] = tree.imported(tree.exported([made]));
  assert.notEqual(back.id, made.id);
  assert.deepEqual({ ...back, id: made.id }, made);
});

test("files that are damaged are refused or mended", () => {
  assert.throws(() => tree.imported("{"), /not JSON/);
  assert.throws(() => tree.imported("[]"), /not exported/);
  const file = (nodes, settings = {}) => JSON.stringify({ format: "rwkv-conversations", version: 1, conversations: [{ nodes, settings }] });
  const user = { parent: 0, role: "user", content: "a" };
  for (const bad of [{ ...user, parent: 1 }, { ...user, parent: -1 }, { ...user, role: "system" }, { ...user, content: 3 }, null]) {
    assert.throws(() => tree.imported(file([{}, bad])), /Message 1/);
  }
  const [mended] = tree.imported(file([{ chosen: 7 }, { ...user, chosen: 1, html: "<b>" }], { __proto__: 1, top_p: 0.5, x: {} }));
  assert.deepEqual(mended.nodes, [{ parent: -1, role: "root", chosen: 1 }, { parent: 0, role: "user", content: "a", chosen: -1 }]);
  assert.deepEqual(mended.settings, { top_p: 0.5 });
});
