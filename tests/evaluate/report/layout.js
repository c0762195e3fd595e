// What is wrong with the layout of the page in sight, as a list of findings; empty if nothing is.

/** Elements that reach beyond the page and stand in no box that scrolls. */
function overflowing() {
  const width = document.documentElement.clientWidth;
  const clips = (node) => node !== null && (getComputedStyle(node).overflowX !== "visible" || clips(node.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > width + 1)
    .filter((node) => !clips(node.parentElement))
    .map((node) => `beyond the page: ${node.tagName} ${node.className} ${node.textContent.slice(0, 40)}`);
}

/** Words in cells of tables that are broken over two lines, and cells that are narrower than their text. */
function brokenWords() {
  const linesOf = (text, from, to) => {
    const range = document.createRange();
    range.setStart(text, from);
    range.setEnd(text, to);
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size;
  };
  const found = [];
  for (const cell of document.querySelectorAll("td, th")) {
    if (!cell.checkVisibility()) continue;
    if (cell.scrollWidth > cell.clientWidth + 1) found.push(`cut off: ${cell.textContent}`);
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      for (const word of texts.currentNode.data.matchAll(/[\p{L}\p{N}_.,%$]+/gu)) {
        if (linesOf(texts.currentNode, word.index, word.index + word[0].length) > 1) found.push(`broken: ${word[0]}`);
      }
    }
  }
  return found;
}

/** Texts of plots that cover each other or reach out of their plot, and legends that cover a plot. */
function overlapping() {
  const found = [];
  const shared = (a, b) => [
    Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top),
  ];
  for (const plot of document.querySelectorAll(".plot")) {
    if (!plot.offsetParent) continue;
    const frame = plot.getBoundingClientRect();
    const texts = [...plot.querySelectorAll(".xtick text, .ytick text, .g-xtitle text, .g-ytitle text, .textpoint text")]
      .filter((node) => node.textContent.trim())
      .map((node) => [node.textContent, node.getBoundingClientRect()]);
    if (texts.length < 4) found.push(`hardly any text: ${texts.map(([text]) => text)}`);
    for (const [i, [text, box]] of texts.entries()) {
      const inside = shared(box, frame);
      if (inside[0] < box.width - 1 || inside[1] < box.height - 1) found.push(`out of its plot: ${text}`);
      for (const [other, there] of texts.slice(i + 1)) {
        if (shared(box, there).every((length) => length > 1)) found.push(`overlap: ${text} / ${other}`);
      }
    }
    const legend = plot.parentElement.querySelector(".legend");
    if (legend && legend.getBoundingClientRect().bottom > frame.top + 1) found.push("the legend covers the plot");
  }
  return found;
}

return [...overflowing(), ...brokenWords(), ...overlapping()];
