// Ties the page together: state of the dataset, pages of cards, keyboard, verdicts.
import { get, refresh, store } from "./api.js";
import { detailKey, isOpen, openDetail, setStyle, setupDetail, shownCard, updateDetail } from "./detail.js";
import { alertUser, announce, byId, count, keepSetting, LABELS, make, setting, wholeNumber } from "./dom.js";
import { active, drawHistograms, parameters, readAddress, setup, writeAddress } from "./filters.js";
import { cardReview, fillGrid, focusCard, focusedCard, moveFocus, redraw, updateCard } from "./grid.js";
import { setColours } from "./overlay.js";
import { forgetVerdict, inQueue, noteVerdict, startQueue, stepQueue, undoVerdict } from "./queue.js";

const PAGE = 48;
const STYLES = ["both", "outline", "none"];
const view = { unit: "images", sort: "order", style: setting("style", "both"), run: "", attention: false, signals: [] };
const page = { cards: [], offset: 0, total: 0 };
let at = -1; // index in page.cards of the card in the dialog, -1 if it came by its address
let request = null;

async function loadState() {
  const state = await get("state");
  view.run = state.run;
  view.attention = state.attention;
  view.signals = state.measures.filter((name) => !name.startsWith("area"));
  setColours(state.colours);
  byId("dataset").textContent = `${state.dataset} · ${summary(state)}`;
  byId("dataset").title = byId("dataset").textContent;
  byId("shard-list").replaceChildren(...state.shards.map((shard) => make("option", { value: shard })));
  const notices = state.caveat ? [make("p", { class: "problem", role: "note" }, state.caveat)] : [];
  const { complete, files, files_total: total, problems } = state.progress;
  if (!complete) {
    notices.push(make("p", { class: "notice", role: "status" }, `Reading ${wholeNumber(files)} of ${wholeNumber(total)} files …`,
      make("progress", { max: Math.max(1, total), value: files, "aria-label": "Files read" })));
  }
  if (problems.length) {
    notices.push(make("div", { class: "problem", role: "alert" },
      make("strong", {}, `${count(problems.length, "file")} cannot be used; the rest is shown.`),
      make("ul", {}, ...problems.slice(0, 20).map(([, message]) => make("li", {}, message)))));
  }
  byId("notices").replaceChildren(...notices);
  return state;
}

function summary(state) {
  const images = Object.values(state.statuses).reduce((sum, number) => sum + number, 0);
  const parts = [count(images, "image"), count(state.masks.with_target, "mask")];
  if (state.statuses.error) parts.push(count(state.statuses.error, "error"));
  const reviewed = Object.values(state.verdicts).reduce((sum, number) => sum + number, 0);
  if (reviewed) parts.push(count(reviewed, "verdict"));
  return parts.join(", ");
}

/** Load the page of cards at `offset`. Returns whether it is shown (a newer request may overtake). */
async function loadPage(offset) {
  request?.abort();
  const mine = new AbortController();
  request = mine;
  const asked = parameters();
  byId("grid").classList.add("loading");
  try {
    const found = await get("cards", { ...asked, offset, limit: PAGE }, mine.signal);
    Object.assign(page, { cards: found.cards, offset, total: found.total });
  } catch (error) {
    if (error.name === "AbortError") return false;
    alertUser(error.message);
    return false;
  } finally {
    if (request === mine) byId("grid").classList.remove("loading");
  }
  Object.assign(view, { unit: asked.unit ?? "images", sort: asked.sort ?? "order", filters: active() });
  fillGrid(page.cards, view, openCard);
  writeAddress(offset);
  showPlace();
  return true;
}

function showPlace() {
  const noun = view.unit === "masks" ? "mask" : "image";
  const last = page.offset + page.cards.length;
  byId("count").textContent = page.total > page.cards.length
    ? `${wholeNumber(page.offset + 1)}–${wholeNumber(last)} of ${count(page.total, noun)}` : count(page.total, noun);
  const pages = Math.max(1, Math.ceil(page.total / PAGE));
  byId("page-number").value = Math.floor(page.offset / PAGE) + 1;
  byId("page-total").textContent = `of ${wholeNumber(pages)}`;
  byId("pager").hidden = page.total === 0;
  byId("page-previous").disabled = page.offset === 0;
  byId("page-next").disabled = last >= page.total;
  byId("filters-button").textContent = view.filters ? `Filters · ${view.filters}` : "Filters";
}

async function turnPage(by) {
  const offset = page.offset + by * PAGE;
  if (offset < 0 || offset >= page.total) return false;
  if (!(await loadPage(offset))) return false;
  scrollTo({ top: 0 });
  return true;
}

function changed() {
  loadPage(0);
  drawHistograms();
}

const addressOf = (card) => `#${encodeURIComponent(card.shard)}/${encodeURIComponent(card.key)}`;

function openCard(i, { push = true } = {}) {
  at = i;
  const card = page.cards[i];
  const place = `${wholeNumber(page.offset + i + 1)} of ${wholeNumber(page.total)}`;
  if (push && !isOpen()) history.pushState({ opened: true }, "", location.pathname + location.search + addressOf(card));
  else history.replaceState(history.state, "", location.pathname + location.search + addressOf(card));
  openDetail(card, view, place);
}

/** Show the next or previous card in the dialog, over the end of the page if need be. */
async function step(by) {
  if (inQueue()) {
    await stepQueue(by);
    return;
  }
  if (at < 0) return;
  let next = at + by;
  if (next < 0 || next >= page.cards.length) {
    if (!(await turnPage(by))) {
      announce(by > 0 ? "this is the last one" : "this is the first one");
      return;
    }
    next = by > 0 ? 0 : page.cards.length - 1;
  }
  openCard(next);
}

function closed() {
  if (location.hash) {
    if (history.state?.opened) history.back();
    else history.replaceState(null, "", location.pathname + location.search);
  }
  focusCard(at);
}

/** Open the card that the address names, if any. */
async function openAddress() {
  let shard, key;
  try {
    [shard, key] = location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch { /* no address of ours */ }
  if (key === undefined) return;
  const i = page.cards.findIndex((card) => card.shard === shard && card.key === key);
  if (i >= 0) {
    openCard(i, { push: false });
    return;
  }
  try {
    at = -1;
    openDetail(await get("card", { shard, key }), view, "");
  } catch (error) {
    alertUser(error.message);
  }
}

/** Store a verdict and show it at once; taken back on the page if it could not be stored. */
async function judge(card, phrase, verdict, note = null) {
  const review = verdict === "none" ? null : { verdict, note };
  const places = phrase === null ? [card] : card.annotations.filter((annotation) => annotation.phrase === phrase);
  const before = places.map((place) => place.review);
  const put = (reviews) => {
    places.forEach((place, i) => { place.review = reviews[i]; });
    // In masks mode an image can stand on several cards, which hold data of their own.
    page.cards.forEach((other, i) => {
      if (other.shard !== card.shard || other.key !== card.key) return;
      if (other !== card) {
        if (phrase === null) other.review = reviews[0];
        else other.annotations.filter((one) => one.phrase === phrase).forEach((one) => { one.review = reviews[0]; });
      }
      updateCard(i, other, view.unit);
    });
    updateDetail(card);
  };
  put(places.map(() => review));
  announce(`${phrase ?? card.key} ${LABELS[verdict] ?? "verdict taken back"}`);
  const seconds = noteVerdict(card, phrase, verdict);
  try {
    await store({ shard: card.shard, key: card.key, phrase, verdict, note, seconds });
  } catch {
    forgetVerdict(card, phrase);
    put(before);
  }
}

/** A verdict on the card that has the focus in the grid. */
function judgeFocused(verdict) {
  const card = page.cards[focusedCard()];
  if (!card) return false;
  const phrase = view.unit === "masks" ? card.annotations[card.hits[0]].phrase : null;
  judge(card, phrase, cardReview(card, view.unit)?.verdict === verdict ? "none" : verdict);
  return true;
}

function nextStyle() {
  setMaskStyle(STYLES[(STYLES.indexOf(view.style) + 1) % STYLES.length]);
}

function setMaskStyle(style) {
  view.style = STYLES.includes(style) ? style : "both";
  byId("mask-style").value = view.style;
  keepSetting("style", view.style);
  redraw(page.cards, view);
  setStyle(view.style);
  announce(`masks: ${byId("mask-style").selectedOptions[0].textContent}`);
}

const actions = { step, judge, closed, undo: undoVerdict, style: nextStyle };

function gridKey(event) {
  const verdict = { a: "accept", r: "reject", f: "flag" }[event.key];
  if (verdict) return judgeFocused(verdict);
  if (event.key.startsWith("Arrow")) return moveFocus(event.key);
  if (event.key === "j" || event.key === "k") {
    if (focusedCard() < 0) focusCard(0);
    else moveFocus(event.key === "j" ? "ArrowRight" : "ArrowLeft");
  } else if (event.key === "[") turnPage(-1);
  else if (event.key === "]") turnPage(1);
  else if (event.key === "o") nextStyle();
  else if (event.key === "/") byId("phrase").focus();
  else return false;
  return true;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const typing = event.target.matches?.("input:not([type=checkbox], [type=radio]), select, textarea");
  if (typing || byId("help").open || setting("shortcuts", "on") === "off") return;
  if (event.key.startsWith("Arrow") && event.target.matches?.("input")) return;
  let done = false;
  if (event.key === "?") {
    byId("help").showModal();
    done = true;
  } else {
    done = isOpen() ? detailKey(event, actions) : gridKey(event);
  }
  if (done) event.preventDefault();
}

function setupPage() {
  setupDetail(actions);
  addEventListener("keydown", onKey);
  addEventListener("popstate", () => {
    if (!location.hash && isOpen()) byId("detail").close();
    else if (location.hash && !isOpen()) openAddress();
    else if (location.hash && location.hash !== addressOf(shownCard())) openAddress();
  });
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("shortcuts").checked = setting("shortcuts", "on") === "on";
  byId("shortcuts").addEventListener("change", (event) => keepSetting("shortcuts", event.target.checked ? "on" : "off"));
  byId("page-previous").addEventListener("click", () => turnPage(-1));
  byId("page-next").addEventListener("click", () => turnPage(1));
  byId("page-number").addEventListener("change", (event) => {
    const pages = Math.max(1, Math.ceil(page.total / PAGE));
    const wanted = Math.min(pages, Math.max(1, parseInt(event.target.value, 10) || 1));
    loadPage((wanted - 1) * PAGE);
  });
  byId("mask-style").value = view.style;
  byId("mask-style").addEventListener("change", (event) => setMaskStyle(event.target.value));
  byId("filters-button").addEventListener("click", () => {
    const open = byId("filters").classList.toggle("open");
    byId("filters-button").setAttribute("aria-expanded", String(open));
  });
  byId("refresh-button").addEventListener("click", async () => {
    try {
      await refresh();
      await loadState();
      await loadPage(page.offset);
      drawHistograms();
      announce("up to date");
    } catch (error) {
      alertUser(error.message);
    }
  });
}

/** While files are being read, look again every second; the cards follow once there are some. */
async function follow(state) {
  let images = -1;
  while (!state.progress.complete) {
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
    try {
      state = await loadState();
    } catch (error) {
      alertUser(error.message);
      return;
    }
    if (state.progress.images !== images && !isOpen() && (page.total < PAGE || state.progress.complete)) {
      images = state.progress.images;
      await loadPage(page.offset);
      drawHistograms();
    }
  }
}

async function start() {
  setupPage();
  try {
    const state = await loadState();
    setup(state.measures, changed);
    await loadPage(readAddress());
    drawHistograms();
    if (location.hash) await openAddress();
    document.documentElement.dataset.ready = "yes";
    await follow(state);
    if (state.audit) await startQueue(view);
  } catch (error) {
    alertUser(error.message);
  }
}

start();
