"use strict";
// The museum's filter: of all mistakes those that have every word, in their name, hint or exercise.
const byId = (id) => document.getElementById(id), MOST = 60;

function draw() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean), lesson = byId("lesson").value;
  const asked = words.length || lesson || byId("shipped").checked;
  const found = window.MISTAKES.filter(([of, name, exercise, , hint, shipped]) =>
    (!lesson || of === lesson) && (shipped || !byId("shipped").checked) &&
    words.every((word) => `${name} ${exercise} ${hint}`.toLowerCase().includes(word)));
  const more = found.length > MOST ? `, the first ${MOST} of them below` : "";
  byId("count").textContent = asked ? `${found.length} of ${window.MISTAKES.length} mistakes${more}`
    : `${window.MISTAKES.length} mistakes. Type a word, or choose a lesson below.`;
  byId("found").replaceChildren(...(asked ? found.slice(0, MOST) : []).map(([, name, exercise, page, hint]) => {
    const line = document.createElement("li"), link = document.createElement("a"), where = document.createElement("code");
    [link.href, link.textContent, where.textContent] = [page, name, exercise];
    line.append(link, " in ", where, `: ${hint}`);
    return line;
  }));
}

["find", "lesson", "shipped"].forEach((id) => byId(id).addEventListener("input", draw));
draw();
