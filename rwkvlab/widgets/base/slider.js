// A slider and a box for the exact number: the value follows while it moves, and a release is told apart.
function render({ model, el }) {
  const box = document.createElement("label");
  box.className = "rwkvlab-slider";
  const words = document.createElement("span");
  const range = document.createElement("input");
  const number = document.createElement("input");
  range.type = "range";
  number.type = "number";
  // the arrow keys are for the slider, and no command of the notebook
  for (const input of [range, number]) input.dataset.lmSuppressShortcuts = "true";
  box.append(words, range, number);
  el.append(box);

  const show = () => {
    words.textContent = model.get("label");
    words.hidden = !model.get("label");
    for (const input of [range, number]) {
      input.min = model.get("min");
      input.max = model.get("max");
      input.step = input === number ? "any" : model.get("step");
      input.disabled = model.get("disabled");
      input.setAttribute("aria-label", model.get("label") || "weight");
    }
    range.value = model.get("value");
    if (document.activeElement !== number) number.value = +model.get("value").toFixed(6);
  };
  const moved = (text) => {
    const value = Math.min(model.get("max"), Math.max(model.get("min"), Number(text)));
    if (text === "" || !Number.isFinite(value)) return null;
    model.set("value", value);
    model.save_changes();
    return value;
  };
  const released = (input) => {
    const value = moved(input.value);
    if (value !== null) model.send({ released: value });
    number.value = +model.get("value").toFixed(6);
  };
  range.addEventListener("input", () => moved(range.value));
  range.addEventListener("change", () => released(range));
  number.addEventListener("change", () => released(number));
  const all = "change:value change:min change:max change:step change:label change:disabled";
  model.on(all, show);
  show();
  return () => model.off(all, show);
}
export default { render };
