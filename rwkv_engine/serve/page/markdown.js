// Markdown to DOM nodes. `parse` makes a tree of plain objects; `render` builds nodes of it with
// createElement and text alone, so that what a model writes can never become HTML or script.

const DEEPEST = 8; // nested quotes, lists and emphasis: beyond it, text stays as it was written
const TAGS = new Set(
  "p h1 h2 h3 h4 h5 h6 pre code blockquote ul ol li table thead tbody tr th td hr br strong em del a".split(" "),
);
const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]+(.*)|)$/;
const QUOTE = /^ {0,3}> ?/;
const COLUMNS = /^ *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;
const LINK = /^https?:\/\/[^\s<>"]+|^mailto:[^\s<>"]+@[^\s<>"]+/i;
const MARKS = ["**", "__", "~~", "*", "_"];
const MARK_TAGS = { "**": "strong", __: "strong", "~~": "del", "*": "em", _: "em" };

/** The blocks of a text: a list of {tag, children, ...attributes} and strings. */
export function parse(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) blocks.push({ tag: "p", children: inline(paragraph.join("\n"), depth) });
    paragraph = [];
  };
  for (let at = 0; at < lines.length; ) {
    const found = block(lines, at, depth, paragraph.length > 0);
    if (found) {
      flush();
      blocks.push(found.node);
      at = found.next;
    } else {
      if (lines[at].trim()) paragraph.push(lines[at].trimStart());
      else flush();
      at += 1;
    }
  }
  flush();
  return blocks;
}

/** The block that begins at a line, and where the next begins; null: the line is part of a paragraph. */
function block(lines, at, depth, within) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence && !(fence[1][0] === "`" && fence[2].includes("`"))) return fenced(lines, at, fence[1]);
  const heading = HEADING.exec(line);
  if (heading) {
    const text = (heading[2] ?? "").trimEnd().replace(/(^|\s)#+$/, "");
    return { node: { tag: `h${heading[1].length}`, children: inline(text, depth) }, next: at + 1 };
  }
  if (RULE.test(line.trimEnd())) return { node: { tag: "hr", children: [] }, next: at + 1 };
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  const item = ITEM.exec(line);
  // inside a paragraph, a number that is not 1 is more likely part of a sentence
  if (depth < DEEPEST && item && (!within || (item[3] && !/^\d*[2-9]/.test(item[2])))) return list(lines, at, depth);
  if (line.includes("|") && COLUMNS.test(lines[at + 1] ?? "")) return table(lines, at, depth);
  return null;
}

function fenced(lines, at, mark) {
  const body = [];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next].trim();
    if (line.length >= mark.length && line === mark[0].repeat(line.length)) break;
    body.push(lines[next]);
  }
  const code = { tag: "code", children: [body.join("\n")] };
  return { node: { tag: "pre", children: [code] }, next: next + 1 };
}

function quote(lines, at, depth) {
  const body = [];
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) body.push(lines[next++].replace(QUOTE, ""));
  return { node: { tag: "blockquote", children: parse(body.join("\n"), depth + 1) }, next };
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const kind = (mark) => (/\d/.test(mark) ? "ol" : "ul");
  const node = { tag: kind(first[2]), children: [] };
  if (node.tag === "ol") node.start = parseInt(first[2], 10);
  let next = at;
  while (next < lines.length) {
    const item = ITEM.exec(lines[next]);
    if (!item || item[1].length > first[1].length + 1 || item[1].length < first[1].length) break;
    if (kind(item[2]) !== node.tag || RULE.test(lines[next].trimEnd())) break;
    const inner = item[1].length + 2; // so much indentation, at least, belongs to the item
    const body = [item[3] ?? ""];
    for (next += 1; next < lines.length; next += 1) {
      const line = lines[next];
      const indent = line.length - line.trimStart().length;
      if (line.trim() && indent < inner) break;
      if (!line.trim() && !(lines[next + 1] ?? "").startsWith(" ".repeat(inner))) break;
      body.push(line.slice(Math.min(indent, item[1].length + item[2].length + 1)));
    }
    const blocks = parse(body.join("\n"), depth + 1);
    if (blocks[0]?.tag === "p") blocks.splice(0, 1, ...blocks[0].children);
    node.children.push({ tag: "li", children: blocks });
    let blank = next;
    while (blank < lines.length && !lines[blank].trim()) blank += 1;
    if (blank > next && ITEM.test(lines[blank] ?? "")) next = blank;
  }
  return { node, next };
}

function table(lines, at, depth) {
  const row = (line, tag) => ({
    tag: "tr",
    children: line
      .trim()
      .replace(/^\||\|$/g, "")
      .split("|")
      .map((cell) => ({ tag, children: inline(cell.trim(), depth) })),
  });
  const body = [];
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|")) body.push(row(lines[next++], "td"));
  const head = { tag: "thead", children: [row(lines[at], "th")] };
  return { node: { tag: "table", children: [head, { tag: "tbody", children: body }] }, next };
}

/** The pieces of a line of text: strings, and nodes for code, emphasis and links. */
export function inline(text, depth = 0) {
  const out = [];
  const unclosed = new Set(); // marks that nothing closes from here on: they are not looked for again
  let plain = "";
  let at = 0;
  const push = (node) => {
    if (plain) out.push(plain);
    plain = "";
    out.push(node);
  };
  while (at < text.length) {
    const found = depth < DEEPEST ? piece(text, at, depth, unclosed) : null;
    if (found) {
      if (typeof found.node === "string") plain += found.node;
      else push(found.node);
      at = found.next;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  if (plain) out.push(plain);
  return out;
}

function piece(text, at, depth, unclosed) {
  const letter = text[at];
  if (letter === "\n") return { node: { tag: "br", children: [] }, next: at + 1 };
  if (letter === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) return { node: text[at + 1], next: at + 2 };
  if (letter === "`") return codeSpan(text, at, unclosed);
  if (letter === "[" || (letter === "!" && text[at + 1] === "[")) return link(text, at, depth);
  if (letter === "h" && !/\w/.test(text[at - 1] ?? " ")) return bareLink(text, at);
  if ("*_~".includes(letter)) return emphasis(text, at, depth, unclosed);
  return null;
}

function codeSpan(text, at, unclosed) {
  let after = at;
  while (text[after] === "`") after += 1;
  const mark = text.slice(at, after);
  if (!unclosed.has(mark)) {
    for (let end = text.indexOf(mark, after); end >= 0; ) {
      let over = end;
      while (text[over] === "`") over += 1;
      if (over - end === mark.length) {
        const code = text.slice(after, end).replace(/\n/g, " ");
        const padded = /^ .*\S.* $/.test(code);
        return { node: { tag: "code", children: [padded ? code.slice(1, -1) : code] }, next: over };
      }
      end = text.indexOf(mark, over);
    }
    unclosed.add(mark);
  }
  return { node: mark, next: after };
}

function emphasis(text, at, depth, unclosed) {
  const mark = MARKS.find((known) => text.startsWith(known, at));
  if (!mark) return null;
  const start = at + mark.length;
  const opens = /\S/.test(text[start] ?? " ") && !(mark[0] === "_" && /\w/.test(text[at - 1] ?? " "));
  if (!opens || unclosed.has(mark)) return { node: mark, next: start };
  const end = closing(text, start, mark);
  if (end < 0) {
    unclosed.add(mark);
    return { node: mark, next: start };
  }
  const children = inline(text.slice(start, end), depth + 1);
  return { node: { tag: MARK_TAGS[mark], children }, next: end + mark.length };
}

/** Where a mark is closed; -1: nowhere. */
function closing(text, from, mark) {
  for (let at = text.indexOf(mark, from); at >= 0; ) {
    let run = at;
    while (text[run] === mark[0]) run += 1;
    const fits = mark.length === 1 ? (run - at) % 2 === 1 : run - at >= mark.length;
    const word = mark[0] === "_" && /\w/.test(text[run] ?? " ");
    if (at > from && /\S/.test(text[at - 1]) && fits && !word) return run - mark.length;
    at = text.indexOf(mark, run);
  }
  return -1;
}

function link(text, at, depth) {
  const start = text.indexOf("[", at) + 1;
  let end = start;
  for (let open = 1; end < text.length && end - start < 300; end += 1) {
    if (text[end] === "[") open += 1;
    if (text[end] === "]" && --open === 0) break;
  }
  const target = /^\]\(<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+"[^"\n]*")?\)/.exec(text.slice(end, end + 2000));
  if (!target || LINK.exec(target[1])?.[0] !== target[1]) return null; // other addresses stay text
  const label = text.slice(start, end) || target[1]; // a picture is never loaded: it is a link
  return { node: { tag: "a", href: target[1], children: inline(label, depth + 1) }, next: end + target[0].length };
}

function bareLink(text, at) {
  const found = LINK.exec(text.slice(at, at + 2000));
  if (!found) return null;
  const href = found[0].replace(/[.,;:!?)\]'*_]+$/, "");
  if (!LINK.test(href)) return null;
  return { node: { tag: "a", href, children: [href] }, next: at + href.length };
}

/** A node of a tree as a DOM node. */
export function toDom(node, document) {
  if (typeof node === "string") return document.createTextNode(node);
  if (!TAGS.has(node.tag)) throw new Error(`unknown tag: ${node.tag}`);
  const element = document.createElement(node.tag);
  if (node.tag === "a") {
    element.setAttribute("href", node.href);
    element.setAttribute("target", "_blank");
    element.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tag === "ol" && node.start !== 1) element.setAttribute("start", String(node.start));
  if (node.tag === "pre") element.setAttribute("tabindex", "0"); // so that keys can scroll it
  for (const child of node.children) element.appendChild(toDom(child, document));
  return element;
}

const shown = new WeakMap();

/** Show a text in an element. Blocks that have not changed since the last time are left alone. */
export function render(element, text, document) {
  const old = shown.get(element) ?? [];
  const blocks = parse(text);
  const marks = blocks.map((node) => JSON.stringify(node));
  blocks.forEach((node, at) => {
    if (marks[at] === old[at]) return;
    const made = toDom(node, document);
    if (at < old.length) element.replaceChild(made, element.childNodes[at]);
    else element.appendChild(made);
  });
  for (let at = old.length; at > blocks.length; at -= 1) element.removeChild(element.childNodes[at - 1]);
  shown.set(element, marks);
}
