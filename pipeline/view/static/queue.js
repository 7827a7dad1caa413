// The queue of an audit: phrases in the order in which they were drawn, each to be given a verdict.
import { get, store } from "./api.js";
import { openDetail, shownCard } from "./detail.js";
import { alertUser, announce, byId, wholeNumber } from "./dom.js";

let items = null; // [{shard, key, phrase, position, verdict}], or null where there is no audit
let at = -1;
let shownAt = 0; // ms, by performance.now()
let view = null;
const given = []; // places in the queue, the last one is what `undoVerdict` takes back

const same = (item, card, phrase) => item.shard === card.shard && item.key === card.key && item.phrase === phrase;

/** Whether the dialog shows a phrase of the queue. */
export const inQueue = () => items !== null && at >= 0 && shownCard()?.queued === at;

/** Load the queue and open its first phrase without a verdict. */
export async function startQueue(context) {
  view = context;
  items = await get("audit");
  byId("undo").hidden = false;
  byId("audit-button").hidden = false;
  byId("audit-button").addEventListener("click", () => stepQueue(1));
  await stepQueue(1);
}

/** The next phrase without a verdict, from the start again if need be; or the one before, decided or not. */
export async function stepQueue(by) {
  showProgress();
  const order = [...items.keys()];
  const ahead = [...order.slice(at + 1), ...order.slice(0, Math.max(0, at))].filter((i) => !items[i].verdict);
  const next = by > 0 ? ahead[0] : at - 1;
  if (by > 0 && next === undefined && items.every((item) => item.verdict)) {
    byId("detail").close();
    announce("every phrase of the audit has a verdict");
  } else if (next >= 0) await show(next);
}

async function show(i) {
  const item = items[i];
  at = i;
  try {
    const card = await get("card", { shard: item.shard, key: item.key });
    if (at !== i) return;
    // What others said must not be seen before one has looked.
    card.review = null;
    card.annotations.forEach((one) => { one.review = null; });
    card.annotations[item.position].review = item.verdict ? { verdict: item.verdict, note: null } : null;
    openDetail({ ...card, hits: [item.position], queued: i }, { ...view, unit: "masks", queue: true }, showProgress());
    shownAt = performance.now();
  } catch (error) {
    alertUser(error.message);
  }
}

function showProgress() {
  const text = `${wholeNumber(items.filter((item) => item.verdict).length)} of ${wholeNumber(items.length)} decided`;
  byId("audit-button").textContent = `Audit: ${text}`;
  return text;
}

/** Note a verdict that is being stored. Returns the seconds that it took, or null if it is none of the queue. */
export function noteVerdict(card, phrase, verdict) {
  if (!inQueue() || !same(items[at], card, phrase)) return null;
  items[at].verdict = verdict === "none" ? null : verdict;
  if (items[at].verdict) given.push(at);
  return (performance.now() - shownAt) / 1000;
}

/** A verdict that could not be stored is none. */
export function forgetVerdict(card, phrase) {
  const item = items?.find((one) => same(one, card, phrase));
  if (item) item.verdict = null;
}

/** Take the last verdict back, and show its phrase again. */
export async function undoVerdict() {
  const last = given.pop();
  if (last === undefined) {
    announce("nothing to take back");
    return;
  }
  const { shard, key, phrase } = items[last];
  items[last].verdict = null;
  try {
    await store({ shard, key, phrase, verdict: "none", note: null });
  } catch { /* said already */ }
  await show(last);
}
