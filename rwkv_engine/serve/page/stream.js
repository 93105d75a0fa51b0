// Asking the server: requests with the key, and answers that come piece by piece.

const KEY = "rwkv-api-key";

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** What the server refuses with: one sentence and a status. */
export class Refused extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

/** Ask for a path; the response. Throws Refused. */
export async function ask(path, body, signal) {
  const headers = getKey() ? { authorization: `Bearer ${getKey()}` } : {};
  const request = { headers, signal, cache: "no-store" };
  if (body) {
    headers["content-type"] = "application/json";
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Refused(told?.error?.message ?? `The server answered with status ${response.status}.`, response.status);
}

/** Cuts a stream of server-sent events into the data of each event. */
export class Events {
  #rest = "";

  /** The events that are whole now. */
  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    return lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
  }
}

/** The pieces of an answer: {text, thought, reason, tokens}. Throws Refused, and AbortError when stopped. */
export async function* answer(body, signal) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await ask("v1/chat/completions", asked, signal);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const events = new Events();
  for (;;) {
    const { value, done } = await reader.read();
    for (const data of events.push(done ? "\n" : decoder.decode(value, { stream: true }))) {
      if (data === "[DONE]") return;
      yield pieceOf(JSON.parse(data));
    }
    if (done) throw new Refused("The connection ended before the answer did.");
  }
}

function pieceOf(chunk) {
  if (chunk.error) throw new Refused(chunk.error.message);
  const choice = chunk.choices[0];
  return {
    text: choice?.delta.content ?? "",
    thought: choice?.delta.reasoning_content ?? "",
    reason: choice?.finish_reason ?? "",
    tokens: chunk.usage?.completion_tokens ?? 0,
  };
}
