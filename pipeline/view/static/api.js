// Requests to the server, and the queue of verdicts on their way to it.
import { alertUser } from "./dom.js";

/** GET JSON. Throws Error with the server's sentence. */
export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters);
  return answer(await fetch(`/api/${path}?${query}`, { signal }));
}

async function post(path, body) {
  return answer(await fetch(`/api/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  }));
}

async function answer(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Error(`the server answered ${response.status} without a reason`);
  }
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

export const refresh = () => post("refresh", {});

const waiting = [];
let sending = null;

/**
 * Store a verdict {shard, key, phrase, verdict, note}. What is given while a request is on its way goes
 * together with the next one. Resolves when it is stored; rejects, after saying so, when it is not.
 */
export function store(verdict) {
  return new Promise((resolve, reject) => {
    waiting.push({ verdict, resolve, reject });
    sending ??= send();
  });
}

async function send() {
  document.documentElement.dataset.storing = "";
  while (waiting.length) {
    const batch = waiting.splice(0, 500);
    try {
      const result = await post("verdicts", { verdicts: batch.map((one) => one.verdict) });
      batch.forEach((one) => one.resolve(result));
    } catch (error) {
      alertUser(`Not stored: ${error.message}`);
      batch.forEach((one) => one.reject(error));
    }
  }
  sending = null;
  delete document.documentElement.dataset.storing;
}

addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault();
});

/** URL of a card's picture. `run` keeps pictures of another dataset on the same port out of the cache. */
export const picture = (card, side, run) => `/picture/${card.id}?side=${side}&v=${run}`;

/** Why an image could not be shown, asked again as text. */
export async function pictureFault(url) {
  try {
    const response = await fetch(url);
    if (response.ok) return "the browser cannot show it";
    return (await response.json()).error;
  } catch (error) {
    return error.message;
  }
}
