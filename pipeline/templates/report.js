"use strict";
(async () => {
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
    for (const view of ["similarity", "compare", "encoder-0", "encoder-1", "encoders"].map((name) => views[name])) {
      await view?.signal("keptColour", colour("--kept")).signal("droppedColour", colour("--drop")).signal("inkColour", colour("--ink")).runAsync();
    }
    if (views.similarity) await showHistogram();
  }

  // A threshold is an edge of the scale, named by its place among the edges; handles stand on whole hundredths, 100 = similarity 0.
  const cells = data.cells && (await openCells(data.cells));
  const edges = data.cells?.edges ?? [];
  const hundredthOf = (similarity) => Math.round((similarity + 1) * 100);
  const edgeOf = new Map();
  edges.forEach((edge, at) => {
    if (Math.abs(edge * 100 - Math.round(edge * 100)) < 1e-6) edgeOf.set(hundredthOf(edge), at);
  });
  const shown = (edge) => (edgeOf.get(hundredthOf(edges[edge])) === edge ? edges[edge].toFixed(2) : String(edges[edge]));
  const start = { low: data.start?.[0], high: data.start?.[1] };
  const band = { ...start };
  const filter = { host: null, page: null, size: 0 };
  let counts = cells?.select(filter);
  const slot = (edge) => 2 * edge + 1;
  const inBand = ({ low, high }, level, kind) => counts[level][kind](slot(low), slot(high));

  function difference(now, before) {
    return now === before ? "" : `${now > before ? "+" : "−"}${number.format(Math.abs(now - before))} against this run’s band`;
  }

  async function showBand() {
    const { low, high } = band;
    const moved = low !== start.low || high !== start.high;
    const [pairs, pages] = [inBand(band, "once", "pairsIn"), inBand(band, "once", "pagesIn")];
    const total = counts.once.pairsIn(0, counts.slots - 1);
    byId("band-value").textContent = `${shown(low)} to ${shown(high)}`;
    byId("pairs-value").textContent = number.format(pairs);
    byId("pages-value").textContent = number.format(pages);
    byId("pairs-note").textContent = difference(pairs, inBand(start, "once", "pairsIn")) || `${percent.format(total ? pairs / total : 0)} of ${number.format(total)} different pairs`;
    byId("pages-note").textContent = difference(pages, inBand(start, "once", "pagesIn")) || `of ${number.format(counts.rows.pagesIn(0, counts.slots - 1))} with candidates`;
    byId("reset").hidden = !moved;
    for (const line of document.querySelectorAll("[data-command]")) line.textContent = `${line.dataset.command} --low ${shown(low)} --high ${shown(high)}`;
    for (const name of ["low", "high"]) {
      const input = byId(name);
      input.value = hundredthOf(edges[band[name]]);
      input.setAttribute("aria-valuetext", shown(band[name]));
    }
    showRules();
    fillRails();
    await views.similarity?.signal("low", edges[low]).signal("high", edges[high]).runAsync();
  }

  // What is left of the candidates after each rule, in the order in which the rules are applied.
  function showRules() {
    const [first, last, end] = [slot(band.low), slot(band.high), counts.slots - 1];
    const steps = { sampled: ["rows", 0, end], below_low: ["rows", first, end], above_high: ["rows", first, last], on_another_page: ["once", first, last] };
    const whole = counts.rows.pairsIn(0, end);
    let before = null;
    for (const [name, [level, from, to]] of Object.entries(steps)) {
      const row = byId(`rule-${name}`);
      const left = { pairs: counts[level].pairsIn(from, to), pages: counts[level].pagesIn(from, to) };
      for (const kind of ["pairs", "pages"]) {
        row.querySelector(`.${kind}`).textContent = number.format(left[kind]);
        row.querySelector(`.${kind}-lost`).textContent = before && before[kind] > left[kind] ? `−${number.format(before[kind] - left[kind])}` : "";
      }
      row.querySelector(".bar span").style.width = `${whole ? (100 * left.pairs) / whole : 0}%`;
      before = left;
    }
  }

  async function showHistogram() {
    const rows = [];
    for (let i = data.first; i < data.last; i++) {
      const pairs = counts.once.pairsIn(slot(edgeOf.get(i)), 2 * edgeOf.get(i + 1) + (i === 199 ? 1 : 0));
      rows.push({ from: i / 100 - 1, to: (i + 1) / 100 - 1, pairs });
    }
    const top = Math.max(1, ...rows.map((row) => row.pairs));
    await views.similarity.data("bins", rows).signal("top", top * 1.12).runAsync();
    await showBand();
  }

  function setUpFilters() {
    for (const [name, choices] of Object.entries(data.cells.filters)) {
      const select = byId(`filter-${name}`);
      for (const [value, label, pairs] of choices) select.add(new Option(`${label}  (${number.format(pairs)})`, value));
      select.disabled = !choices.length;
      select.addEventListener("change", () => {
        filter[name] = select.value === "" ? (name === "size" ? 0 : null) : Number(select.value);
        changeFilter();
      });
    }
    byId("clear").addEventListener("click", () => {
      Object.assign(filter, { host: null, page: null, size: 0 });
      for (const name of Object.keys(data.cells.filters)) byId(`filter-${name}`).value = "";
      changeFilter();
    });
  }

  async function changeFilter() {
    counts = cells.select(filter);
    byId("clear").hidden = filter.host === null && filter.page === null && filter.size === 0;
    examples = along.filter((row) => cells.shows(filter, row));
    lookAt(Number(byId("look").value));
    await (views.similarity ? showHistogram() : showBand());
  }

  const along = data.examples.filter((row) => row.along);
  let examples = along;
  const RAIL = 10;
  const distance = (row, similarity) => Math.abs(row.similarity - similarity);
  const ascending = (a, b) => a.similarity - b.similarity;
  const nearest = (rows, similarity) => rows.slice().sort((a, b) => distance(a, similarity) - distance(b, similarity)).slice(0, RAIL);

  function fillRails() {
    const [low, high] = [Math.fround(edges[band.low]), Math.fround(edges[band.high])];
    const inside = examples.filter((row) => row.similarity >= low && row.similarity <= high);
    fill("rail-below-low", nearest(examples.filter((row) => row.similarity < low), low));
    fill("rail-above-low", nearest(inside, low));
    fill("rail-below-high", nearest(inside, high));
    fill("rail-above-high", nearest(examples.filter((row) => row.similarity > high), high));
  }

  function fill(id, rows) {
    const rail = typeof id === "string" ? byId(id) : id;
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
    const figures = article.querySelectorAll("figure");
    ["a", "b"].forEach((side, place) => {
      const [figure, text] = [figures[place], row[`${side}_text`]];
      figure.prepend(picture(row[side], text, row[`${side}_url`]));
      const caption = figure.querySelector("bdi");
      caption.textContent = text || "no alt text";
      caption.title = text;
      caption.classList.toggle("none", !text);
      figure.querySelector(".size").textContent = row[`${side}_size`];
    });
    article.querySelector(".value").textContent = row.value ?? row.similarity.toFixed(3);
    const link = article.querySelector("a");
    if (row.link) link.href = row.link;
    link.title = row.images ? `${row.page} (${row.images} images)` : row.page;
    link.firstElementChild.textContent = row.page;
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

  function lookAt(hundredth) {
    const look = byId("look");
    look.value = hundredth;
    const at = Number(look.value);
    const rows = nearest(examples, at / 100 - 1).sort(ascending);
    const range = rows.length ? `${rows[0].similarity.toFixed(2)} to ${rows.at(-1).similarity.toFixed(2)}` : (at / 100 - 1).toFixed(2);
    look.setAttribute("aria-valuetext", (at / 100 - 1).toFixed(2));
    byId("look-value").textContent = (at / 100 - 1).toFixed(2);
    byId("look-range").textContent = range;
    const cursor = document.querySelector(".cursor");
    cursor.hidden = false;
    cursor.style.left = `${(100 * (at - data.first)) / (data.last - data.first)}%`;
    fill("rail-look", rows);
  }

  function setUpExplorer() {
    for (const name of ["low", "high", "look"]) {
      const input = byId(name);
      input.min = data.first;
      input.max = data.last;
    }
    byId("low").addEventListener("input", (event) => move("low", Math.min(Number(event.target.value), hundredthOf(edges[band.high]) - 1)));
    byId("high").addEventListener("input", (event) => move("high", Math.max(Number(event.target.value), hundredthOf(edges[band.low]) + 1)));
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
    for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", () => copy(button));
    setUpFilters();
    lookAt(Math.round((hundredthOf(edges[start.low]) + hundredthOf(edges[start.high])) / 2));
    showBand();
  }

  function move(name, hundredth) {
    band[name] = edgeOf.get(hundredth);
    showBand();
  }

  async function copy(button) {
    const command = byId(button.dataset.copies);
    getSelection().selectAllChildren(command);
    let copied = true;
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      copied = document.execCommand("copy");
    }
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 1600);
  }

  function fillDrops() {
    for (const rail of document.querySelectorAll("[data-reason]")) fill(rail, data.examples.filter((row) => row.reasons.includes(rail.dataset.reason)));
    for (const rail of document.querySelectorAll("[data-nearer]")) fill(rail, data.disagreements.filter((row) => row.nearer === rail.dataset.nearer));
    for (const place of document.querySelectorAll("[data-picture]")) {
      const [source] = data.thumbnails[place.dataset.picture] ?? [];
      if (!source) continue;
      const image = document.createElement("img");
      Object.assign(image, { src: source, alt: "" });
      place.replaceChildren(image);
    }
  }

  if (cells) setUpExplorer();
  fillDrops();
  dark.addEventListener("change", drawCharts);
  await drawCharts();
  root.dataset.ready = "yes";
})();
