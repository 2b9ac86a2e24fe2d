// A button that copies a Python call, and shows it: the text is only ever set as text.
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "rwkvlab-code";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button rwkvlab-copy";
  button.textContent = "copy code";
  button.title = "the Python call which makes this view";
  const said = document.createElement("span");
  said.className = "rwkvlab-code-said";
  said.setAttribute("role", "status");
  const text = document.createElement("pre");
  text.tabIndex = 0;
  text.hidden = true;
  box.append(button, said, text);
  el.append(box);

  const show = () => {
    text.textContent = model.get("code");
  };
  const copy = async () => {
    show();
    text.hidden = false;
    try {
      await navigator.clipboard.writeText(model.get("code"));
      said.textContent = "copied";
    } catch {
      // without a permission for the clipboard the text is selected, for Ctrl-C
      const range = document.createRange();
      range.selectNodeContents(text);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      said.textContent = "selected: press Ctrl-C";
    }
  };
  const changed = () => {
    said.textContent = "";
    show();
  };
  button.addEventListener("click", copy);
  model.on("change:code", changed);
  show();
  return () => model.off("change:code", changed);
}
export default { render };
