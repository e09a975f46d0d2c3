"use strict";
// Counts pairs and pages of any band under any filter. What the keys hold: pipeline/report_cells.py.
async function openCells(cells) {
  const bytes = Uint8Array.from(atob(cells.packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const packed = await new Response(stream).json();
  const slots = 2 * cells.edges.length + 1;
  const [pageGroups, sizeGroups, choices] = [cells.page_groups, cells.size_groups, cells.size_choices];
  const named = new Set(cells.filters.host.map(([number]) => number));

  const unpack = ([deltas, counts]) => {
    let key = 0;
    return { keys: Int32Array.from(deltas, (delta) => (key += delta)), counts };
  };
  const levels = {};
  for (const name of ["once", "again"]) {
    levels[name] = Object.fromEntries(Object.entries(packed[name]).map(([kind, value]) => [kind, unpack(value)]));
  }

  function matcher({ host, page, size }) {
    const atPage = (group, hostOf) => (host === null || hostOf === host) && (page === null || group === page);
    return {
      pair(cell) {
        const at = Math.floor(cell / sizeGroups);
        return choices[size].includes(cell % sizeGroups) && atPage(at % pageGroups, Math.floor(at / pageGroups));
      },
      page(key) {
        const at = Math.floor(key / choices.length);
        return key % choices.length === size && atPage(at % pageGroups, Math.floor(at / pageGroups));
      },
    };
  }

  function add(level, match, sums) {
    const { pairs, pages, gaps } = levels[level];
    pairs.keys.forEach((key, i) => {
      if (match.pair(Math.floor(key / slots))) sums.pairs[(key % slots) + 1] += pairs.counts[i];
    });
    pages.keys.forEach((key, i) => {
      if (match.page(key)) sums.pages += pages.counts[i];
    });
    const square = slots * slots;
    let [last, inside] = [-1, false];
    gaps.keys.forEach((key, i) => {
      const group = Math.floor(key / square);
      if (group !== last) [last, inside] = [group, match.page(group)];
      if (inside) sums.without[key - group * square] += gaps.counts[i];
    });
  }

  // without[first * slots + last] becomes the number of pages that have no pair in the slots first to last.
  function accumulate({ pairs, pages, without }) {
    for (let i = 1; i <= slots; i++) pairs[i] += pairs[i - 1];
    for (let first = 0; first < slots; first++) {
      for (let last = slots - 1; last >= 0; last--) {
        const at = first * slots + last;
        if (first > 0) without[at] += without[at - slots];
        if (last < slots - 1) without[at] += without[at + 1];
        if (first > 0 && last < slots - 1) without[at] -= without[at - slots + 1];
      }
    }
    return {
      pairsIn: (first, last) => pairs[last + 1] - pairs[first],
      pagesIn: (first, last) => pages - without[first * slots + last],
    };
  }

  // Returns the counts of pairs where they stand once, and of every row of candidates/.
  function select(filter) {
    const match = matcher(filter);
    const empty = () => ({ pairs: new Float64Array(slots + 1), pages: 0, without: new Int32Array(slots * slots) });
    const [once, rows] = [empty(), empty()];
    add("once", match, once);
    add("once", match, rows);
    add("again", match, rows);
    return { once: accumulate(once), rows: accumulate(rows), slots };
  }

  const hostOf = (row) => (named.has(row.host) ? row.host : cells.other);
  const shows = ({ host, page, size }, row) =>
    (host === null || hostOf(row) === host) && (page === null || row.group === page) && choices[size].includes(row.size);
  return { select, shows };
}
