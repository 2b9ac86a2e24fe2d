// A grid to choose one row from: only the rows in sight are in the page, and text is only ever set as text.
const ROW = 28;
const BEYOND = 8;
let grids = 0;

function element(tag, name, role) {
  const made = document.createElement(tag);
  made.className = name;
  if (role) made.setAttribute("role", role);
  return made;
}

// "0.188", "450M", "1.5B" as numbers
function size(text) {
  return parseFloat(text) * ({ K: 1e3, M: 1e6, B: 1e9 }[text.slice(-1)] ?? 1) || 0;
}

function render({ model, el }) {
  const id = `rwkvlab-table-${++grids}`;
  const grid = element("div", "rwkvlab-table tex2jax_ignore mathjax_ignore", "grid");
  const head = element("div", "rwkvlab-table-head", "row");
  const body = element("div", "rwkvlab-table-body", "rowgroup");
  const none = element("div", "rwkvlab-table-none");
  none.textContent = "nothing here has these words";
  grid.tabIndex = 0;
  // letters typed here are for this table, and no command of the notebook
  grid.dataset.lmSuppressShortcuts = "true";
  grid.append(head, body, none);
  el.append(grid);

  let order = [];
  let active = 0;
  let typed = "";
  let typedAt = 0;
  const rows = () => model.get("rows");

  function sorted() {
    const by = model.get("sort");
    const name = by.replace(/^-/, "");
    const at = model.get("columns").findIndex((column) => column.name === name);
    const found = model.get("shown").filter((index) => rows()[index]);
    if (at < 0) return found;
    const number = model.get("columns")[at].number;
    const sign = by.startsWith("-") ? -1 : 1;
    const order = new Intl.Collator(undefined, { numeric: true });
    return found.sort((a, b) => {
      const [one, other] = [rows()[a], rows()[b]];
      if (one.first !== other.first) return one.first ? -1 : 1;
      if (!one.off !== !other.off) return one.off ? 1 : -1;
      const [x, y] = [one.cells[at], other.cells[at]];
      if (!x !== !y) return x ? -1 : 1;
      return sign * (number ? size(x) - size(y) : order.compare(x, y)) || a - b;
    });
  }

  function drawHead() {
    head.replaceChildren();
    const by = model.get("sort");
    for (const column of model.get("columns")) {
      const cell = element("div", column.number ? "number" : "", "columnheader");
      const button = element("button", "");
      const up = by === column.name;
      const down = by === `-${column.name}`;
      button.type = "button";
      button.textContent = (up ? "▲ " : down ? "▼ " : "") + column.name;
      button.title = `sort by ${column.name}`;
      button.dataset.lmSuppressShortcuts = "true";
      cell.setAttribute("aria-sort", up ? "ascending" : down ? "descending" : "none");
      button.addEventListener("click", () => {
        model.set("sort", up ? `-${column.name}` : down ? "" : column.name);
        model.save_changes();
      });
      button.addEventListener("keydown", (event) => event.stopPropagation());
      cell.append(button);
      head.append(cell);
    }
    // short columns are never cut; the others share what is left
    const widths = model.get("columns").map(({ width }) =>
      width > 12 ? `minmax(8em, ${width}fr)` : `calc(${width * 0.72}em + 18px)`,
    );
    grid.style.setProperty("--rwkvlab-columns", widths.join(" "));
    grid.setAttribute("aria-label", model.get("label"));
    grid.style.maxHeight = `${(model.get("height") + 1) * ROW + 2}px`;
  }

  function rowOf(index) {
    const { cells, off, brief } = rows()[index];
    const row = element("div", "rwkvlab-table-row", "row");
    row.id = `${id}-${index}`;
    row.dataset.index = index;
    if (off) row.setAttribute("aria-disabled", "true");
    row.title = off ? `${cells[0]}\ncannot be used: ${off}` : cells.filter(Boolean).join("\n");
    model.get("columns").forEach((column, at) => {
      // where a row cannot be chosen, the reason stands in place of what is known of it
      if (off && at > 1) return;
      const cell = element("div", column.number && !(off && at) ? "number" : "", "gridcell");
      cell.textContent = off && at ? brief : cells[at];
      if (off && at) {
        cell.classList.add("why");
        cell.setAttribute("aria-colspan", model.get("columns").length - 1);
      }
      row.append(cell);
    });
    return row;
  }

  // rows in sight are kept as they are: a click must end on the element that it began on
  let kept = new Map();
  function draw() {
    const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - BEYOND);
    const to = Math.min(order.length, from + Math.ceil((grid.clientHeight || 300) / ROW) + 2 * BEYOND);
    const seen = new Map();
    for (let position = from; position < to; position++) {
      const index = order[position];
      const row = kept.get(index) ?? rowOf(index);
      row.style.top = `${position * ROW}px`;
      row.setAttribute("aria-rowindex", position + 2);
      row.setAttribute("aria-selected", index === model.get("chosen"));
      row.classList.toggle("active", position === active);
      seen.set(index, row);
    }
    kept = seen;
    body.style.height = `${order.length * ROW}px`;
    const wanted = [...seen.values()];
    if (wanted.length !== body.children.length || wanted.some((row, at) => body.children[at] !== row)) {
      body.replaceChildren(...wanted);
    }
    none.hidden = order.length > 0;
    grid.setAttribute("aria-rowcount", order.length + 1);
    const here = active >= from && active < to ? `${id}-${order[active]}` : "";
    if (here) grid.setAttribute("aria-activedescendant", here);
    else grid.removeAttribute("aria-activedescendant");
  }

  function bring() {
    const top = active * ROW;
    const room = grid.clientHeight - ROW;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (room > 0 && top + ROW > grid.scrollTop + room) grid.scrollTop = top + ROW - room;
  }

  function move(position) {
    active = Math.max(0, Math.min(order.length - 1, position));
    bring();
    draw();
  }

  function choose() {
    if (order[active] === undefined) return;
    draw();
    model.send({ choose: order[active], version: model.get("version") });
  }

  function type(letter) {
    const now = performance.now();
    typed = now - typedAt > 900 ? letter : typed + letter;
    typedAt = now;
    const text = typed.toLocaleLowerCase();
    const start = typed.length > 1 ? active : active + 1;
    for (let step = 0; step < order.length; step++) {
      const position = (start + step) % order.length;
      if (rows()[order[position]].cells[0].toLocaleLowerCase().startsWith(text)) return move(position);
    }
  }

  function keydown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, model.get("height") - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) move(active + steps[event.key]);
    else if (event.key === "Enter" || (event.key === " " && !typed.length)) choose();
    else if (event.key === " " && performance.now() - typedAt > 900) choose();
    else if (event.key.length === 1) type(event.key);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function arrange() {
    const at = order[active];
    order = sorted();
    kept = new Map();
    const wanted = order.indexOf(model.get("chosen"));
    active = Math.max(0, wanted >= 0 ? wanted : order.indexOf(at));
    drawHead();
    draw();
    bring();
    draw();
  }

  function chosen() {
    const wanted = order.indexOf(model.get("chosen"));
    if (wanted >= 0) move(wanted);
    else draw();
  }

  // several traits that change together make one picture
  let waits = false;
  const later = () => {
    if (waits) return;
    waits = true;
    queueMicrotask(() => {
      waits = false;
      arrange();
    });
  };
  body.addEventListener("click", (event) => {
    const row = event.target.closest(".rwkvlab-table-row");
    if (!row) return;
    active = order.indexOf(Number(row.dataset.index));
    choose();
  });
  grid.addEventListener("scroll", draw);
  grid.addEventListener("keydown", keydown);
  const sized = new ResizeObserver(() => draw());
  sized.observe(grid);
  model.on("change:rows change:shown change:columns change:sort change:label change:height", later);
  model.on("change:chosen", chosen);
  arrange();
  return () => {
    sized.disconnect();
    model.off("change:rows change:shown change:columns change:sort change:label change:height", later);
    model.off("change:chosen", chosen);
  };
}
export default { render };
