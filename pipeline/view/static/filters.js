// The filter form, its ranges with histograms, and the address bar, which holds all of it.
import { get } from "./api.js";
import { byId, LABELS, make, wholeNumber } from "./dom.js";

const form = byId("filter-form");
const FIELDS = ["phrase", "status", "target", "verdict", "shard", "key", "unit", "sort", "direction"];
const DEFAULTS = { unit: "images", sort: "order", direction: "asc" };
const blocks = [];

/** Values of the form that differ from the defaults, as URL parameters of the API. */
export function parameters() {
  const values = {};
  for (const name of FIELDS) {
    const value = String(form.elements[name].value).trim();
    if (value && value !== DEFAULTS[name]) values[name] = value;
  }
  for (const block of blocks) Object.assign(values, block.values());
  return values;
}

/** How many filters are set (order and unit are none). */
export function active() {
  return Object.keys(parameters()).filter((name) => !["unit", "sort", "direction"].includes(name)).length;
}

/** Fill the form from the address bar. Returns the offset that it holds. */
export function readAddress() {
  const address = new URLSearchParams(location.search);
  for (const name of FIELDS) form.elements[name].value = address.get(name) ?? DEFAULTS[name] ?? "";
  for (const block of blocks) block.read(address);
  return Math.max(0, parseInt(address.get("offset") ?? "0", 10) || 0);
}

export function writeAddress(offset) {
  const values = parameters();
  if (offset) values.offset = offset;
  const query = new URLSearchParams(values).toString();
  history.replaceState(history.state, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
}

/** Build what depends on the dataset; `changed` is called, a moment after the last keystroke. */
export function setup(measures, changed) {
  for (const measure of measures) {
    form.elements.sort.append(make("option", { value: measure }, LABELS[measure] ?? measure));
  }
  blocks.push(rangeBlock(["score"]), rangeBlock(["area"]));
  blocks.push(rangeBlock(measures.filter((name) => !["score", "area"].includes(name))));
  byId("ranges").append(...blocks.map((block) => block.element));
  let timer = 0;
  const soon = (event) => {
    nameDirections();
    clearTimeout(timer);
    timer = setTimeout(changed, event.type === "input" && event.target.matches("input[type=search], input:not([type])") ? 250 : 0);
    if (event.target.name === "phrase") suggest(event.target.value);
  };
  form.addEventListener("input", soon);
  form.addEventListener("reset", (event) => setTimeout(() => {
    blocks.forEach((block) => block.clear());
    nameDirections();
    soon(event);
  }));
  form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
  // The search field and the toolbar stand outside the form's element, so events do not bubble through it.
  for (const field of [...form.elements].filter((element) => !form.contains(element))) {
    field.addEventListener("input", soon);
  }
  readAddress();
  nameDirections();
}

/** Draw the histograms for the filters that are set. */
export function drawHistograms() {
  const values = parameters();
  for (const block of blocks) block.draw(values);
}

function nameDirections() {
  const [low, high] = form.elements.direction.options;
  const sort = form.elements.sort.value;
  const sized = sort.startsWith("area");
  low.textContent = sized ? "smallest first" : sort === "order" ? "from the start" : "worst first";
  high.textContent = sized ? "largest first" : sort === "order" ? "from the end" : "best first";
  form.elements.direction.disabled = sort === "random";
}

async function suggest(text) {
  if (text.trim().length < 2) return;
  try {
    const found = await get("phrases", { text: text.trim().replaceAll('"', "") });
    byId("phrase-list").replaceChildren(
      ...found.map(({ phrase, count }) => make("option", { value: `"${phrase}"`, label: `${phrase} (${wholeNumber(count)})` })),
    );
  } catch { /* suggestions are a comfort: the search itself reports errors */ }
}

/** A fieldset for the range of one measure, or of one chosen among several. */
function rangeBlock(measures) {
  let measure = measures[0];
  let scale = null;
  const held = {}; // measure: [low, high] as text, of those not shown
  const label = (bound) => `${bound} ${LABELS[measure] ?? measure}`;
  const low = make("input", { inputmode: "decimal", placeholder: "min", "aria-label": label("Least") });
  const high = make("input", { inputmode: "decimal", placeholder: "max", "aria-label": label("Greatest") });
  const chart = make("div", { "aria-hidden": "true" });
  const choice = measures.length > 1
    ? make("select", { "aria-label": "Other signal" }, ...measures.map((name) => make("option", { value: name }, LABELS[name] ?? name)))
    : null;
  const element = make("fieldset", { class: "range" },
    make("legend", { class: choice ? "hidden" : null }, LABELS[measure] ?? measure), choice, chart,
    make("div", { class: "pair" }, low, "to", high));
  choice?.addEventListener("input", () => {
    held[measure] = [low.value, high.value];
    measure = choice.value;
    [low.value, high.value] = held[measure] ?? ["", ""];
    low.setAttribute("aria-label", label("Least"));
    high.setAttribute("aria-label", label("Greatest"));
    element.querySelector("legend").textContent = LABELS[measure];
    draw(parameters());
  });
  const shade = () => {
    const bars = [...chart.querySelectorAll("rect")];
    const [from, to] = [low.value === "" ? -Infinity : Number(low.value), high.value === "" ? Infinity : Number(high.value)];
    bars.forEach((bar, i) => bar.classList.toggle("inside", scale(i + 1, bars.length) > from && scale(i, bars.length) < to));
  };
  const draw = async (values) => {
    let spread;
    try { spread = await get("histogram", { ...values, measure }); } catch { return; }
    scale = (bin, bins) => {
      if (!spread.log) return spread.low + (spread.high - spread.low) * bin / bins;
      return spread.low * (spread.high / spread.low) ** (bin / bins);
    };
    const svg = histogram(spread.counts);
    chart.replaceChildren(svg);
    shade();
    drag(svg, (from, to) => {
      const digits = measure === "area" ? 0 : 2;
      low.value = from <= 0 ? "" : scale(from, 1).toFixed(digits);
      high.value = to >= 1 ? "" : scale(to, 1).toFixed(digits);
      shade();
    }, () => low.dispatchEvent(new Event("input", { bubbles: true })));
  };
  const values = () => {
    const pairs = { ...held, [measure]: [low.value, high.value] };
    const found = {};
    for (const [name, [least, greatest]] of Object.entries(pairs)) {
      if (least.trim() !== "" && Number.isFinite(Number(least))) found[`min_${name}`] = least.trim();
      if (greatest.trim() !== "" && Number.isFinite(Number(greatest))) found[`max_${name}`] = greatest.trim();
    }
    return found;
  };
  const read = (address) => {
    for (const name of measures) {
      const pair = [address.get(`min_${name}`) ?? "", address.get(`max_${name}`) ?? ""];
      if (name === measure) [low.value, high.value] = pair;
      else held[name] = pair;
    }
  };
  const clear = () => {
    low.value = high.value = "";
    for (const name of Object.keys(held)) delete held[name];
  };
  return { element, values, read, clear, draw };
}

function histogram(counts) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length} 1`);
  svg.setAttribute("preserveAspectRatio", "none");
  const most = Math.max(1, ...counts);
  counts.forEach((number, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = number ? Math.max(0.03, Math.sqrt(number / most)) : 0;
    for (const [name, value] of Object.entries({ x: i + 0.08, y: 1 - height, width: 0.84, height })) bar.setAttribute(name, value);
    svg.append(bar);
  });
  return svg;
}

/** Let a pointer sweep out a part of the chart: `moved(from, to)` in 0..1, then `done()`. */
function drag(svg, moved, done) {
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  let start = null;
  svg.addEventListener("pointerdown", (event) => { start = at(event); svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointermove", (event) => {
    if (start !== null) moved(Math.min(start, at(event)), Math.max(start, at(event)));
  });
  svg.addEventListener("pointerup", (event) => {
    if (start === null) return;
    if (Math.abs(at(event) - start) < 0.02) moved(0, 1); // a click clears the range
    start = null;
    done();
  });
}
