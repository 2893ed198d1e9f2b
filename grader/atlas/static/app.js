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

function line(model, most) {  // one model: a picture of its layers, what it is, its numbers
  const context = contextLength(), bytes = bytesAt(model, context), beyond = model.longest && context > model.longest;
  const numbers = element("dl", { className: "numbers" });
  const add = (label, ...value) => numbers.append(element("div", {}, element("dt", { textContent: label }), element("dd", {}, ...value)));
  if (model.size) add("parameters", model.size);
  if (model.context) add("context", model.context);
  if (model.kib) add("cache for one token", model.kib);
  if (bytes !== null) {
    const fill = element("span", {});
    fill.style.width = `${Math.max(1, 100 * bytes / most)}%`;
    add(`cache at ${context.toLocaleString("en")} tokens`, beyond ? element("span", { className: "mark", textContent:
      `${readable(bytes)}, beyond its context` }) : readable(bytes), element("div", { className: "bar", ariaHidden: "true" }, fill));
  }
  const picked = chosen.has(model.slug), full = chosen.size === 2 && !picked;
  const pick = element("input", { type: "checkbox", checked: picked, disabled: !model.verified || full });
  pick.dataset.slug = model.slug;
  pick.setAttribute("aria-label", `compare ${model.name}`);
  pick.addEventListener("change", () => choose(model.slug, pick.checked));
  const seen = model.defaults ? DEFAULTS : model.verified ? "" : "config.json not seen: published, not verified";
  const made = [model.developer, model.date || "date not found", model.licence || "licence not found"].join(" · ");
  return element("li", { className: picked ? "card picked" : "card" },
    element("label", { className: "line", title: full ? "Two are ticked: untick one first" : "compare" }, pick),
    element("div", { className: "thumbnail", innerHTML: model.thumbnail }),
    element("div", { className: "what" },
      element("h3", {}, element("a", { href: `models/${model.slug}.html`, textContent: model.name })),
      element("p", { textContent: model.mix }), element("p", { className: "muted", textContent: made }),
      ...(seen ? [element("p", { className: "mark", textContent: seen })] : [])),
    numbers);
}

function choose(slug, picked) {
  if (picked && chosen.size < 2) chosen.add(slug); else chosen.delete(slug);
  const [left, right] = [...chosen];
  byId("left").value = left ?? ""; byId("right").value = right ?? "";
  draw();
  document.querySelector(`#cards input[data-slug="${slug}"]`)?.focus();  // the lines are new: who used the keyboard goes on
}

function tray() {  // what is ticked, wherever on the page one is
  const place = byId("tray");
  place.hidden = !chosen.size;
  place.replaceChildren(...[...chosen].map((slug) => {
    const name = MODELS.find((m) => m.slug === slug).name;
    const drop = element("button", { type: "button", textContent: `${name} ×` });
    drop.setAttribute("aria-label", `untick ${name}`);
    drop.addEventListener("click", () => choose(slug, false));
    return drop;
  }), chosen.size === 2 ? element("a", { href: "#compare", textContent: "see the comparison" })
    : element("span", { className: "muted", textContent: "tick one more to compare" }));
}

// The address says what is shown, behind #, which is all that a page from a folder may change of it.
const KEPT = ["find", "attention", "decoder", "sort", "context", "verified"];
const FIRST = Object.fromEntries(KEPT.map((id) => [id, valueOf(byId(id))]));

function valueOf(control) { return control.type === "checkbox" ? String(control.checked) : control.value; }

function keep() {
  const said = new URLSearchParams();
  for (const id of KEPT) if (valueOf(byId(id)) !== FIRST[id]) said.set(id, valueOf(byId(id)));
  if (chosen.size) said.set("compare", [...chosen].join(","));
  if (String(said) || location.hash.includes("=")) history.replaceState(null, "", `#${said}`);
}

function takeUp() {
  if (location.hash && !location.hash.includes("=")) return;  // a place on the page
  const said = new URLSearchParams(location.hash.slice(1));
  for (const id of KEPT) {
    const value = said.get(id) ?? FIRST[id];
    if (byId(id).type === "checkbox") byId(id).checked = value === "true"; else byId(id).value = value;
  }
  chosen.clear();
  for (const slug of (said.get("compare") ?? "").split(",").slice(0, 2))
    if (MODELS.some((m) => m.slug === slug && m.verified)) chosen.add(slug);
  const [left, right] = [...chosen];
  byId("left").value = left ?? ""; byId("right").value = right ?? "";
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
  const cache = (m) => readable(bytesAt(m, context)) + (m.longest && context > m.longest ? ", beyond its context" : "");
  rows.push([`cache at ${context.toLocaleString("en")} tokens`, ...found.map(cache)]);
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
  byId("cards").replaceChildren(...found.map((m) => line(m, most)));
  tray();
  keep();
  compare();
}

controls.forEach((control) => control.addEventListener("input", draw));
["left", "right"].forEach((id) => byId(id).addEventListener("input", () => {
  chosen.clear();
  for (const slug of [byId("left").value, byId("right").value]) if (slug) chosen.add(slug);
  draw();
}));
SIDE_BY_SIDE.addEventListener("change", compare);
window.addEventListener("hashchange", () => { if (location.hash.includes("=")) { takeUp(); draw(); } });
takeUp();
draw();
byId("line").scrollLeft = byId("line").scrollWidth;  // on a phone: the newest first
