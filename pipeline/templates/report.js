"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const number = new Intl.NumberFormat("en");
  const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
  const views = {};

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function theme() {
    const text = { labelColor: colour("--dim"), titleColor: colour("--dim"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 };
    return {
      background: "transparent",
      font: colour("--sans"),
      view: { stroke: null },
      rect: { color: colour("--kept") },
      axis: { ...text, gridColor: colour("--line"), domainColor: colour("--line-strong"), tickColor: colour("--line-strong"), titlePadding: 8 },
    };
  }

  async function drawCharts() {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const spec = data.charts[place.dataset.chart];
      if (!spec) continue;
      const options = { actions: false, renderer: "svg", config: theme(), tooltip: { theme: dark.matches ? "dark" : "light" } };
      views[place.dataset.chart]?.finalize();
      views[place.dataset.chart] = (await vegaEmbed(place, spec, options)).view;
    }
    const histogram = views.similarity;
    if (histogram) histogram.signal("keptColour", colour("--kept")).signal("droppedColour", colour("--drop"));
    if (histogram) await showBand();
  }

  // A threshold is an edge of a bin: edge i stands for the similarity i / 100 - 1.
  const similarityOf = (edge) => edge / 100 - 1;
  const edgeOf = (similarity) => Math.round((similarity + 1) * 100);
  const shown = (edge) => similarityOf(edge).toFixed(2);
  const rounded = (similarity) => (String(similarity).length > 4 ? similarity.toFixed(4) : similarity.toFixed(2));
  const start = { low: edgeOf(data.low), high: edgeOf(data.high) };
  const band = { ...start };

  const pairsIn = (low, high) => data.pairs.slice(low, high).reduce((sum, count) => sum + count, 0);
  // A gap [i, j, n] says that n pages have no pair in the bins i to j: a band inside it gives them none.
  const pagesIn = (low, high) => data.pages - data.gaps.reduce((sum, [i, j, n]) => sum + (i <= low && j >= high - 1 ? n : 0), 0);

  function difference(now, before) {
    return now === before ? "" : `${now > before ? "+" : "−"}${number.format(Math.abs(now - before))} against this run’s band`;
  }

  async function showBand() {
    const { low, high } = band;
    const moved = low !== start.low || high !== start.high;
    const total = pairsIn(0, data.pairs.length);
    // The run's own numbers are exact even where its band lies between edges.
    const [pairs, pages] = moved ? [pairsIn(low, high), pagesIn(low, high)] : [data.kept, data.kept_pages];
    byId("band-value").textContent = moved ? `${shown(low)} to ${shown(high)}` : `${rounded(data.low)} to ${rounded(data.high)}`;
    byId("pairs-value").textContent = number.format(pairs);
    byId("pages-value").textContent = number.format(pages);
    byId("pairs-note").textContent = difference(pairs, data.kept) || `${percent.format(total ? pairs / total : 0)} of ${number.format(total)}`;
    byId("pages-note").textContent = difference(pages, data.kept_pages) || `of ${number.format(data.pages)} with candidates`;
    byId("reset").hidden = !moved;
    const flags = moved ? `--low ${shown(low)} --high ${shown(high)}` : `--low ${data.low} --high ${data.high}`;
    byId("command").textContent = `${byId("command").dataset.start} ${flags}`;
    for (const name of ["low", "high"]) {
      const input = byId(name);
      input.value = band[name];
      input.setAttribute("aria-valuetext", shown(band[name]));
    }
    fillRails();
    if (views.similarity) await views.similarity.signal("low", similarityOf(low)).signal("high", similarityOf(high)).runAsync();
  }

  const examples = data.examples;
  const RAIL = 8;
  const distance = (row, similarity) => Math.abs(row.similarity - similarity);
  const nearest = (rows, similarity) => rows.slice().sort((a, b) => distance(a, similarity) - distance(b, similarity)).slice(0, RAIL);

  function fillRails() {
    const [low, high] = [similarityOf(band.low), similarityOf(band.high)];
    const inside = examples.filter((row) => row.similarity >= low && row.similarity <= high);
    fill("rail-below-low", nearest(examples.filter((row) => row.similarity < low), low));
    fill("rail-above-low", nearest(inside, low));
    fill("rail-below-high", nearest(inside, high));
    fill("rail-above-high", nearest(examples.filter((row) => row.similarity > high), high));
  }

  function fill(id, rows) {
    const rail = byId(id);
    const key = rows.map((row) => `${row.a}${row.b}`).join();
    if (rail.dataset.key === key && rail.childElementCount) return;
    rail.dataset.key = key;
    rail.replaceChildren(...(rows.length ? rows.map(card) : [note("No sampled pair here.")]));
    rail.scrollLeft = 0;
  }

  function note(text) {
    const line = document.createElement("p");
    line.className = "empty";
    line.textContent = text;
    return line;
  }

  function card(row) {
    const article = byId("card").content.firstElementChild.cloneNode(true);
    const [left, right] = article.querySelectorAll("figure");
    left.append(picture(row.a, row.a_text, row.a_url));
    right.append(picture(row.b, row.b_text, row.b_url));
    article.querySelector(".value").textContent = row.similarity.toFixed(3);
    const link = article.querySelector("a");
    if (row.link) link.href = row.link;
    link.title = row.page;
    link.firstElementChild.textContent = row.page;
    article.querySelector(".alt bdi").textContent = [...new Set([row.a_text, row.b_text])].filter(Boolean).join(" · ") || "no alt text";
    return article;
  }

  function picture(id, text, url) {
    const [source, reason] = data.thumbnails[id];
    const element = document.createElement(source ? "img" : "span");
    element.title = url;
    if (source) {
      element.src = source;
      element.alt = text || url;
    } else {
      element.className = "missing";
      element.textContent = reason.replaceAll("_", " ");
    }
    return element;
  }

  function lookAt(edge) {
    const look = byId("look");
    look.value = edge;
    const at = Number(look.value);
    look.setAttribute("aria-valuetext", shown(at));
    byId("look-value").textContent = shown(at);
    const cursor = document.querySelector(".cursor");
    cursor.hidden = false;
    cursor.style.left = `${(100 * (at - data.first)) / (data.last - data.first)}%`;
    fill("rail-look", nearest(examples, similarityOf(at)));
  }

  function setUpExplorer() {
    for (const name of ["low", "high", "look"]) {
      const input = byId(name);
      input.min = data.first;
      input.max = data.last;
    }
    byId("low").addEventListener("input", (event) => {
      band.low = Math.min(Number(event.target.value), band.high - 1);
      showBand();
    });
    byId("high").addEventListener("input", (event) => {
      band.high = Math.max(Number(event.target.value), band.low + 1);
      showBand();
    });
    byId("reset").addEventListener("click", () => {
      Object.assign(band, start);
      showBand();
    });
    byId("look").addEventListener("input", (event) => lookAt(Number(event.target.value)));
    const explorer = document.querySelector(".explorer");
    const point = (event) => {
      const box = explorer.getBoundingClientRect();
      lookAt(Math.round(data.first + ((event.clientX - box.left) / box.width) * (data.last - data.first)));
    };
    explorer.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !event.buttons) point(event);
    });
    explorer.addEventListener("click", (event) => {
      if (event.target.tagName !== "INPUT") point(event);
    });
    byId("copy").addEventListener("click", copyCommand);
    lookAt(Math.round((start.low + start.high) / 2));
    showBand();
  }

  async function copyCommand() {
    const command = byId("command");
    getSelection().selectAllChildren(command);
    let copied = true;
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      copied = document.execCommand("copy");
    }
    byId("copy").textContent = copied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (byId("copy").textContent = "Copy"), 1600);
  }

  if (byId("low")) setUpExplorer();
  dark.addEventListener("change", drawCharts);
  drawCharts();
})();
