"use strict";
// Sets a figure's rows at the heights of another's, as `grader diff --to` does: where the other has a row more, space is
// inserted; where its row is taller, the box grows. A figure comes with its bands: of each row its top and bottom, and
// the two heights between them at which it may grow (grader/atlas/drawing/svg.py).
const ROWS = ["head", "norm", "plus per-layer", "norm after per-layer", "per-layer", "leave per-layer", "plus MLP",
  "norm after MLP", "mlp", "norm before MLP", "leave MLP", "plus attention",
  "norm after attention", "mixer", "norm before attention", "leave attention", "notes", "embedding"];
const LEFT_OF_BLOCK = 62;

function shifts(bands, other) {  // [height, pixels inserted there], from the top down
  const found = [], both = [bands, other], bottoms = [0, 0], before = ["", ""];  // each figure's last row so far
  let inserted = 0, at = 0, last = "";
  const insert = (height, pixels) => { if (pixels > 0.01) { found.push([height, pixels]); inserted += pixels; } };
  for (const row of ROWS) {
    const having = both.filter((one) => one[row]);
    if (!having.length) continue;
    const spaces = [0, 1].filter((i) => both[i][row]).map((i) => [before[i] === last, both[i][row][0] - bottoms[i]]);
    const next = spaces.filter(([follows]) => follows);  // whose last row is this one's neighbour knows the space
    const space = Math.max(...(next.length ? next : spaces).map(([, pixels]) => pixels));
    const height = Math.max(...having.map((one) => one[row][1] - one[row][0]));
    at += space;
    if (bands[row]) {
      const [top, bottom, first, second] = bands[row];
      insert(top - 1, at - top - inserted);
      const more = height - (bottom - top);
      insert(first, more / 2);
      insert(second, more / 2);
    }
    at += height;
    both.forEach((one, i) => { if (one[row]) [bottoms[i], before[i]] = [one[row][1], row]; });
    last = row;
  }
  return found;
}

function moved(y, found) {
  return found.reduce((sum, [height, pixels]) => (height < y ? sum + pixels : sum), y);
}

function align(svg, bands, found) {  // moves what is drawn in the SVG, which stays as sharp as it was
  const to = (y) => moved(y, found), number = (shape, name) => Number(shape.getAttribute(name));
  const [top, bottom] = bands.block;
  for (const shape of svg.querySelectorAll("rect, text, circle, path")) {
    if (shape.tagName === "rect") {
      const y = number(shape, "y"), end = y + number(shape, "height");
      shape.setAttribute("y", to(y));
      shape.setAttribute("height", to(end) - to(y));
    } else if (shape.tagName === "text") {
      const y = number(shape, "y"), beside = number(shape, "x") < LEFT_OF_BLOCK && y > top && y < bottom;
      shape.setAttribute("y", beside ? y + to(top) - top : to(y));
    } else if (shape.tagName === "circle") {
      shape.setAttribute("cy", to(number(shape, "cy")));
    } else if (shape.classList.contains("tile")) {
      const first = Number(/^M[\d.]+ ([\d.]+)/.exec(shape.getAttribute("d"))[1]);
      if (first > bottom) shape.setAttribute("transform", `translate(0 ${to(first) - first})`);
      else {  // the strip of layers reaches from the block's top, under its number, to its bottom
        const scale = (to(bottom) - to(top) - 28) / (bottom - top - 28);
        shape.setAttribute("transform", `translate(0 ${to(top) + 26 - scale * (top + 26)}) scale(1 ${scale})`);
      }
    } else {  // capital letters hold places; small ones hold sizes, which stay
      const path = shape.getAttribute("d").replace(/([MLQ])([^A-Za-z]+)/g, (_, letter, numbers) =>
        letter + numbers.trim().split(/\s+/).map((value, i) => (i % 2 ? to(Number(value)) : value)).join(" "));
      shape.setAttribute("d", path);
    }
  }
  const more = found.reduce((sum, [, pixels]) => sum + pixels, 0), [, , width, height] = svg.getAttribute("viewBox").split(" ");
  svg.setAttribute("viewBox", `0 0 ${width} ${Number(height) + more}`);
  svg.setAttribute("height", Number(height) + more);
}
