// An overview of all heads of a state, or of two and their difference, and the matrix of the chosen head: painted on
// canvases of one pixel a number, scaled by the style sheet; what is shown is said in words too, only ever as text.
const BROKEN = [214, 39, 118]; // a matrix entry that is NaN
const make = (parent, tag, name, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  parent.append(element);
  return element;
};
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const say = (value, digits = 4) =>
  Number.isFinite(value) ? String(Number(value.toPrecision(digits))).replace("-", "−") : `${value}`.replace("-", "−");
const floats = (bytes) =>
  new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
let made = 0; // names of elements are unique in the page

function paint(canvas, numbers, rows, columns, low, high, colours, broken) {
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(columns, rows);
  const data = image.data;
  const scale = 256 / (high - low);
  for (let i = 0, at = 0; i < numbers.length; i++, at += 4) {
    const value = numbers[i];
    if (value !== value) {
      data.set(broken ? [...BROKEN, 255] : [0, 0, 0, 0], at);
      continue;
    }
    const shade = 3 * clamp(Math.floor((value - low) * scale), 0, 255);
    data[at] = colours[shade];
    data[at + 1] = colours[shade + 1];
    data[at + 2] = colours[shade + 2];
    data[at + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

// A canvas with its title, axes, colour bar and a line of words; it knows nothing of states.
class Panel {
  constructor(parent, kind, across, down) {
    this.box = make(parent, "figure", `rwkvlab-panel rwkvlab-${kind}`);
    this.title = make(this.box, "figcaption", "rwkvlab-title");
    const frame = make(this.box, "div", "rwkvlab-frame");
    this.names = { across, down };
    this.down = make(frame, "div", "rwkvlab-down");
    this.scroll = make(frame, "div", "rwkvlab-scroll");
    this.stage = make(this.scroll, "div", "rwkvlab-stage");
    this.across = make(this.scroll, "div", "rwkvlab-across");
    this.canvas = make(this.stage, "canvas", "rwkvlab-canvas");
    this.hover = make(this.stage, "div", "rwkvlab-hover");
    this.hover.hidden = true;
    const bar = make(this.box, "div", "rwkvlab-bar");
    [this.low, this.strip, this.high] = ["span", "canvas", "span"].map((tag) => make(bar, tag, "rwkvlab-end"));
    this.strip.className = "rwkvlab-strip";
    this.line = make(this.box, "div", "rwkvlab-line");
    this.note = "";
    [this.rows, this.columns, this.wide, this.tall] = [0, 0, 0, 0];
  }
  draw(numbers, rows, columns, { low, high, colours, broken, note }) {
    if (rows !== this.rows || columns !== this.columns) {
      for (const [where, count] of [["across", columns], ["down", rows]]) {
        const words = count > 1 ? ["0", this.names[where], String(count - 1)] : [`${this.names[where]} 0`];
        this[where].replaceChildren();
        for (const text of words) make(this[where], "span", "", text);
      }
    }
    [this.numbers, this.rows, this.columns, this.note] = [numbers, rows, columns, note];
    paint(this.canvas, numbers, rows, columns, low, high, colours, broken);
    paint(this.strip, Float32Array.from({ length: 256 }, (_, i) => i), 1, 256, 0, 256, colours, false);
    this.low.textContent = say(low, 3);
    this.high.textContent = (low < 0 ? "+" : "") + say(high, 3);
    this.line.textContent = note;
  }
  size(wide, tall) {
    [this.wide, this.tall] = [wide, tall];
    const [across, down] = [`${this.columns * wide}px`, `${this.rows * tall}px`];
    Object.assign(this.canvas.style, { width: across, height: down });
    this.across.style.width = across;
    this.down.style.height = down;
    this.box.style.setProperty("--rwkvlab-wide", across);
  }
  place(element, row, column) {
    const [left, top, width, height] = [column * this.wide, row * this.tall, this.wide, this.tall].map((x) => `${x}px`);
    Object.assign(element.style, { left, top, width, height });
  }
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const part = (value, size, count) => clamp(Math.floor((value / size) * count), 0, count - 1);
    return [part(event.clientY - box.top, box.height, this.rows), part(event.clientX - box.left, box.width, this.columns)];
  }
  look(row, column, words) {
    this.hover.hidden = row === null;
    this.line.textContent = row === null ? this.note : words;
    if (row !== null) this.place(this.hover, row, column);
  }
}

// The overview is an ARIA grid of which only the chosen cell is in the page: the active descendant.
class Overview extends Panel {
  constructor(parent, choose) {
    super(parent, "overview", "head", "layer");
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "grid");
    this.canvas.setAttribute("aria-hidden", "true");
    this.row = make(this.stage, "div", "rwkvlab-row");
    this.row.setAttribute("role", "row");
    this.ring = make(this.row, "div", "rwkvlab-ring");
    this.ring.setAttribute("role", "gridcell");
    this.ring.setAttribute("aria-selected", "true");
    this.ring.id = `rwkvlab-cell-${++made}`;
    this.stage.setAttribute("aria-activedescendant", this.ring.id);
    this.stage.addEventListener("keydown", (event) => {
      const [row, column] = this.chosen;
      const [end, bottom, page] = [this.columns - 1, this.rows - 1, Math.max(1, Math.round(this.rows / 4))];
      const to = {
        ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
        ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
        PageUp: [row - page, column], PageDown: [row + page, column],
        Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? bottom : row, end],
      }[event.key];
      if (!to || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      choose(clamp(to[0], 0, bottom), clamp(to[1], 0, end));
    });
    this.stage.addEventListener("click", (event) => choose(...this.at(event)));
    this.stage.addEventListener("pointermove", (event) => event.buttons === 1 && choose(...this.at(event)));
  }
  choose(row, column, words) {
    this.chosen = [row, column];
    this.place(this.ring, row, column);
    this.row.setAttribute("aria-rowindex", row + 1);
    this.ring.setAttribute("aria-colindex", column + 1);
    this.ring.setAttribute("aria-label", words);
    const { scroll, wide, tall } = this;
    scroll.scrollTop = clamp(scroll.scrollTop, (row + 1) * tall + 12 - scroll.clientHeight, row * tall);
    scroll.scrollLeft = clamp(scroll.scrollLeft, (column + 1) * wide + 12 - scroll.clientWidth, column * wide);
  }
}

function render({ model, el }) {
  const root = make(el, "div", "rwkvlab-heads");
  let maps = [], matrices = [], colours = {};
  const isDark = () => {
    const place = root.isConnected ? root : document.body; // without a page it has no colours of its own
    const ink = (getComputedStyle(place).color.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
    return 0.3 * ink[0] + 0.59 * ink[1] + 0.11 * ink[2] > 128; // light text is meant for a dark page
  };
  const value = (at, row, column) => {
    const number = maps[at].numbers[row * maps[at].columns + column];
    const told = model.get("_maps").maps[at];
    const words = Number.isNaN(number) ? "no number" : Number.isFinite(number) ? say(number) : told.infinite || say(number);
    return `layer ${row}, head ${column}: ${words}`;
  };
  const choose = (layer, head) => {
    const [one, two] = model.get("selected");
    if (one === layer && two === head) return;
    model.set("selected", [layer, head]);
    model.save_changes();
  };
  const mark = () => {
    const [layer, head] = model.get("selected");
    maps.forEach((map, at) => {
      if (layer >= map.rows || head >= map.columns) return; // the maps of another state are on their way
      map.choose(layer, head, `${value(at, layer, head)}, ${model.get("_maps").maps[at].what}`);
    });
  };
  const build = (count) => {
    root.replaceChildren();
    root.dataset.states = count;
    [maps, matrices] = [[], []];
    for (let at = 0; at < count; at++) {
      const section = make(root, "section", "rwkvlab-side");
      maps.push(new Overview(section, choose));
      matrices.push(new Panel(section, "matrix", "key channel", "value channel"));
      matrices[at].canvas.setAttribute("role", "img");
    }
    const hover = (panels, words) => panels.forEach((panel) => {
      const all = (...place) => panels.forEach((each, at) => each.look(...place, place[0] === null ? "" : words(at, ...place)));
      panel.stage.addEventListener("pointermove", (event) => all(...panel.at(event)));
      panel.stage.addEventListener("pointerleave", () => all(null, null));
    });
    hover(maps, value);
    hover(matrices, (at, row, column) =>
      `value channel ${row}, key channel ${column}: ${say(matrices[at].numbers[row * matrices[at].columns + column])}`);
  };
  const fit = () => {
    if (!maps.length || !matrices[0].rows) return;
    const [wide, one] = [root.clientWidth || 1000, maps.length === 1];
    const narrow = wide < (one ? 620 : 860);
    const side = narrow ? Math.min(384, wide - 60) : one ? wide / 2 - 70 : wide / maps.length - 44;
    const { rows, columns } = maps[0];
    const most = one && !narrow ? Math.max(side, wide - 70 - 384 - 90) : side;
    const cell = clamp(Math.floor(Math.min(most / columns, 400 / rows)), 4, 26);
    const matrix = matrices[0];
    const zoom = clamp(Math.floor(Math.min(side, 384) / Math.max(matrix.rows, matrix.columns)), 1, 24);
    const tall = clamp(Math.floor((one ? 320 : 240) / rows), cell, Math.round(1.6 * cell)); // easier to hit
    maps.forEach((map) => map.size(cell, tall));
    matrices.forEach((each) => each.size(zoom, zoom));
    mark();
  };
  const drawMaps = () => {
    const { shape, maps: told, data } = model.get("_maps");
    const [count, layers, heads] = shape;
    if (count !== maps.length) build(count);
    const numbers = floats(data);
    told.forEach(({ name, what, low, high, note }, at) => {
      const part = numbers.subarray(at * layers * heads, (at + 1) * layers * heads);
      const map = maps[at];
      map.draw(part, layers, heads, { low, high, colours: low < 0 ? colours.signed : colours.plain, note });
      map.title.replaceChildren();
      make(map.title, "b", "rwkvlab-name", name).title = name;
      make(map.title, "span", "rwkvlab-what", what);
      map.stage.setAttribute("aria-label", `${name}: ${what}, ${layers} layers down, ${heads} heads across. ${note}`);
      map.stage.setAttribute("aria-rowcount", layers);
      map.stage.setAttribute("aria-colcount", heads);
    });
  };
  const drawHead = () => {
    const { at, shape, parts, data } = model.get("_head");
    const [count, rows, columns] = shape;
    if (count !== matrices.length) return;
    const numbers = floats(data);
    const before = [matrices[0].rows, matrices[0].columns].join();
    parts.forEach(({ name, what, limit, note }, part) => {
      const matrix = matrices[part];
      const own = numbers.subarray(part * rows * columns, (part + 1) * rows * columns);
      matrix.draw(own, rows, columns, { low: -limit, high: limit, colours: colours.signed, broken: true, note });
      matrix.title.replaceChildren();
      make(matrix.title, "b", "rwkvlab-name", name).title = name;
      make(matrix.title, "span", "rwkvlab-what", what);
      matrix.canvas.setAttribute("aria-label", `${name}, ${what}: ${rows} value channels down, ${columns} key channels across. ${note}`);
    });
    root.dataset.shown = at.join();
    if (before !== [rows, columns].join()) fit();
  };
  const drawAll = () => {
    const dark = isDark();
    const table = new Uint8Array(model.get("_colours").buffer.slice(model.get("_colours").byteOffset));
    colours = { signed: table.subarray(dark ? 768 : 0, dark ? 1536 : 768), plain: table.subarray(1536, 2304) };
    root.dataset.dark = dark;
    if (model.get("dark") !== dark) {
      model.set("dark", dark);
      model.save_changes();
    }
    drawMaps();
    drawHead();
    fit();
  };
  const watched = [["change:selected", mark], ["change:_maps", drawAll], ["change:_head", drawHead]];
  watched.forEach(([event, act]) => model.on(event, act));
  const width = new ResizeObserver(fit);
  const theme = new MutationObserver(() => isDark() !== (root.dataset.dark === "true") && drawAll());
  width.observe(root);
  theme.observe(document.body, { attributes: true });
  drawAll();
  const later = requestAnimationFrame(drawAll); // in the page by now, so that its colours are known
  return () => {
    cancelAnimationFrame(later);
    watched.forEach(([event, act]) => model.off(event, act));
    width.disconnect();
    theme.disconnect();
  };
}
export default { render };
