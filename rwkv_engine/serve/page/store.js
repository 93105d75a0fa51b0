// Conversations in this browser (IndexedDB). Where a browser has none, or refuses it, they last as long as the page.

const NAME = "conversations";
let database = null;

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Open the store; whether conversations are kept. */
export async function open() {
  try {
    const request = indexedDB.open("rwkv", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(NAME, { keyPath: "id" });
    database = await done(request);
  } catch {
    database = null;
  }
  return database !== null;
}

const store = (mode) => database.transaction(NAME, mode).objectStore(NAME);

/** All conversations, the newest first. */
export async function all() {
  const found = database ? await done(store("readonly").getAll()) : [];
  return found.sort((one, other) => other.changed - one.changed);
}

/** Keep a conversation. */
export const put = async (conversation) => database && done(store("readwrite").put(conversation));

/** Forget a conversation. */
export const remove = async (id) => database && done(store("readwrite").delete(id));
