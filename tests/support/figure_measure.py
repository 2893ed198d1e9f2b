"""What is measured of figures in the browser: no text over text, none that leaves its box or its card."""

MEASURE = """() => [...document.querySelectorAll('svg')].flatMap((svg, which) => {
  const card = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(t => ({what: t.textContent, box: t.getBoundingClientRect()}));
  const found = [];
  texts.forEach((a, i) => {
    if (a.box.left < card.left + 2 || a.box.right > card.right - 2 || a.box.bottom > card.bottom - 1)
      found.push(`${svg.querySelector('title').textContent}: "${a.what}" leaves the card`);
    texts.slice(i + 1).forEach(b => {
      const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
      const tall = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
      if (wide > 0.5 && tall > 3) found.push(`${svg.querySelector('title').textContent}: "${a.what}" over "${b.what}"`);
    });
    const rects = [...svg.querySelectorAll('rect:not(.card):not(.ring)')].map(r => r.getBoundingClientRect());
    rects.forEach(r => {
      const middle = (a.box.left + a.box.right) / 2, y = (a.box.top + a.box.bottom) / 2;
      const inside = middle > r.left && middle < r.right && y > r.top && y < r.bottom;
      if (inside && (a.box.left < r.left + 1 || a.box.right > r.right - 1))
        found.push(`${svg.querySelector('title').textContent}: "${a.what}" is wider than its box`);
    });
  });
  return found;
})"""
