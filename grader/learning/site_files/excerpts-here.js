"use strict";
// A page that is opened from a folder may fetch no other, and Sphinx's search would show no excerpts: they come from a script.
if (location.protocol === "file:" && location.pathname.endsWith("/search.html")) {
  const script = Object.assign(document.createElement("script"), { src: "_static/excerpts.js" });
  const ready = new Promise((done) => script.addEventListener("load", done));
  document.head.append(script);
  window.fetch = async (address) => {
    await ready;
    const page = decodeURI(String(address)).replace(/^(\.\/)+/, "").replace(/[#?].*$/, "");
    return new Response(`<div role="main">${window.EXCERPTS[page] ?? ""}</div>`);
  };
}
