"use strict";
// Filters, sorts and compares the models of data.js; every cache number follows the slider.
const MODELS = window.MODELS, byId = (id) => document.getElementById(id);
const controls = ["find", "attention", "decoder", "verified", "sort", "context"].map(byId);
const chosen = new Set();
const DEFAULTS = "from its class's defaults: context and RoPE may be others";
const SIDE_BY_SIDE = matchMedia("(min-width: 48.5rem)");  // as in style.css; below it figures stand under each other
const PANELS = ["model", ...["attention", "mlp"].flatMap((kind) => [kind, ...[2, 3, 4, 5, 6].map((i) => `${kind}-${i}`)])];

function contextLength() { return 2 ** Number(byId("context").value); }

function bytesAt(model, context) {  // bfloat16; each row: layers, numbers an entry, window or 0, bytes of a state, ...
  if (!model.cache) return null;
  return model.cache.reduce((sum, [count, values, window, state, rate, waiting]) => {  // ... tokens an entry, a token's wait
    const kept = values * Math.floor((window ? Math.min(context, window) : context) / rate);
    return sum + count * (2 * (kept + waiting * (context % rate)) + state);
  }, 0);
}

function readable(bytes) {
  if (bytes === null) return "not counted";
  for (const [size, unit] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
    if (bytes >= size) return `${Number((bytes / size).toPrecision(3))} ${unit}`;
  return `${bytes} bytes`;
}

function element(tag, fields, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

function shown() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [attention, decoder] = [byId("attention").value, byId("decoder").value];
  const found = MODELS.filter((m) =>
    words.every((w) => m.text.includes(w)) && (!attention || m.kinds.includes(attention)) &&
    (!decoder || m.decoder.includes(decoder)) && (!byId("verified").checked || m.verified));
  const context = contextLength();
  const keys = {
    newest: (m) => -Number(m.date.replaceAll("-", "").padEnd(8, "0")), name: (m) => m.name.toLowerCase(),
    smallest: (m) => m.parameters ?? Infinity, largest: (m) => -(m.parameters ?? 0),
    cache: (m) => bytesAt(m, context) ?? Infinity,
  };
  const key = keys[byId("sort").value];
  return found.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

function card(model, most) {
  const bytes = bytesAt(model, contextLength());
  const numbers = element("dl", { className: "numbers" });
  for (const [label, value] of [["parameters", model.size], ["context", model.context], ["cache for one token", model.kib],
    [`cache at ${contextLength().toLocaleString("en")} tokens`, readable(bytes)]])
    if (value) numbers.append(element("dt", { textContent: label }), element("dd", { textContent: value }));
  if (bytes !== null) {
    const fill = element("span", {});
    fill.style.width = `${Math.max(1, 100 * bytes / most)}%`;
    numbers.append(element("div", { className: "bar", ariaHidden: "true" }, fill));
  }
  const pick = element("input", { type: "checkbox", checked: chosen.has(model.slug), disabled: !model.verified });
  pick.dataset.slug = model.slug;
  pick.setAttribute("aria-label", `compare ${model.name}`);
  pick.addEventListener("change", () => choose(model.slug, pick.checked));
  const told = element("label", { className: "line" }, pick, " compare");
  if (chosen.size === 2 && chosen.has(model.slug)) told.append(" ", element("a", { href: "#compare", textContent: "see it" }));
  const seen = model.defaults ? DEFAULTS : model.verified ? "" : "config.json not seen: published, not verified";
  return element("li", { className: "card" },
    element("h3", {}, element("a", { href: `models/${model.slug}.html`, textContent: model.name })),
    element("p", { className: "muted", textContent: [model.developer, model.date, model.licence].filter(Boolean).join(" · ") }),
    element("p", { textContent: model.mix }), element("p", { className: "mark", textContent: seen }), numbers,
    told);
}

function choose(slug, picked) {
  if (picked) chosen.add(slug); else chosen.delete(slug);
  while (chosen.size > 2) chosen.delete([...chosen][0]);
  const [left, right] = [...chosen];
  byId("left").value = left ?? ""; byId("right").value = right ?? "";
  draw();
  document.querySelector(`#cards input[data-slug="${slug}"]`)?.focus();  // the cards are new: who used the keyboard goes on
}

function compare() {
  const found = [byId("left").value, byId("right").value].map((slug) => MODELS.find((m) => m.slug === slug));
  const place = byId("compared");
  place.replaceChildren();
  if (!found[0] || !found[1]) return;
  const context = contextLength(), table = element("table", {}), head = element("tr", {}, element("th", { textContent: "" }));
  for (const m of found)
    head.append(element("th", { scope: "col" }, m.name, element("div", { className: "mark", textContent: m.defaults ? DEFAULTS : "" })));
  table.append(element("thead", {}, head));
  const body = element("tbody", {});
  const labels = [...new Set(found.flatMap((m) => Object.keys(m.summary)))];
  const rows = labels.map((label) => [label, ...found.map((m) => m.summary[label] ?? "–")]);
  rows.push([`cache at ${context.toLocaleString("en")} tokens`, ...found.map((m) => readable(bytesAt(m, context)))]);
  for (const [label, left, right] of rows) {
    const differs = left !== right;
    body.append(element("tr", { className: differs ? "differs" : "" },
      element("td", { textContent: `${differs ? "≠" : "="} ${label}` }), element("td", { textContent: left }),
      element("td", { textContent: right })));
  }
  table.append(body);
  const panels = element("div", { className: "pairs" });
  place.append(element("div", { className: "scroll" }, table), panels);
  Promise.all(found.map((m) => figureOf(m.slug))).then((figures) => drawPair(panels, figures, found.map((m) => m.name)));
}

function drawPair(place, [left, right], [leftName, rightName]) {  // a row for each panel, attention beside attention
  place.replaceChildren(...PANELS.flatMap((name) => {
    if (name === "model") return [ringed(left, right, rightName), ringed(right, left, leftName)];
    if (!left.panels[name] && !right.panels[name]) return [];
    return [left, right].map((one) => element("figure", { innerHTML: one.panels[name] ?? "" }));
  }));
}

function figureOf(slug) {  // a script for each figure: a page that is opened from its folder may fetch nothing
  if (window.FIGURES?.[slug]) return Promise.resolve(window.FIGURES[slug]);
  return new Promise((done) => {
    const script = element("script", { src: `figures/${slug}.js` });
    script.addEventListener("load", () => done(window.FIGURES[slug]));
    document.head.append(script);
  });
}

function ringed(figure, other, name) {  // the first panel, with a ring around what is not as in the other
  const holder = element("figure", { innerHTML: figure.panels.model }), svg = holder.querySelector("svg");
  const found = SIDE_BY_SIDE.matches ? shifts(figure.bands, other.bands) : [];
  if (found.length) align(svg, figure.bands, found);
  let rings = 0;
  for (const [key, [says, x, y, width, height]] of Object.entries(figure.spots)) {
    if (other.spots[key]?.[0] === says) continue;
    const ring = document.createElementNS(svg.namespaceURI, "rect"), top = moved(y, found);
    const sizes = { class: "ring", x: x - 3, y: top - 3, width: width + 6, height: moved(y + height, found) - top + 6, rx: 9 };
    for (const [field, value] of Object.entries(sizes)) ring.setAttribute(field, value);
    svg.append(ring);
    rings += 1;
  }
  if (figure.repeated !== other.repeated) {
    [...svg.querySelectorAll("text")].find((text) => text.textContent === `${figure.repeated} ×`).classList.add("r");
    rings += 1;
  }
  holder.append(element("figcaption", { className: "muted",
    textContent: rings ? `Orange: not as in ${name}` : `As in ${name}` }));
  return holder;
}

function draw() {
  const found = shown(), context = contextLength();
  const most = Math.max(1, ...found.map((m) => bytesAt(m, context) ?? 0));
  byId("tokens").textContent = `${context.toLocaleString("en")} tokens`;
  byId("context").setAttribute("aria-valuetext", `${context.toLocaleString("en")} tokens`);
  const pair = [...chosen].map((slug) => MODELS.find((m) => m.slug === slug).name).join(" and ");
  byId("count").textContent = `${found.length} of ${MODELS.length} models${pair && `; to compare: ${pair}`}`;
  byId("cards").replaceChildren(...found.map((m) => card(m, most)));
  compare();
}

controls.forEach((control) => control.addEventListener("input", draw));
["left", "right"].forEach((id) => byId(id).addEventListener("input", () => {
  chosen.clear();
  for (const slug of [byId("left").value, byId("right").value]) if (slug) chosen.add(slug);
  draw();
}));
SIDE_BY_SIDE.addEventListener("change", compare);
draw();
byId("line").scrollLeft = byId("line").scrollWidth;  // on a phone: the newest first
