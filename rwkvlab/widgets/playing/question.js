// A box for a question with an Ask button; and a file that Python sends is offered as a download.
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "rwkvlab-question";
  const text = document.createElement("textarea");
  text.rows = 3;
  text.placeholder = model.get("hint");
  text.setAttribute("aria-label", "question");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button mod-primary rwkvlab-ask";
  button.textContent = "Ask";
  button.title = "ask all columns at the same time (Ctrl-Enter in the box)";
  box.append(text, button);
  el.append(box);

  const show = () => {
    if (text.value !== model.get("value")) text.value = model.get("value");
  };
  const ask = () => {
    model.set("value", text.value);
    model.save_changes();
    // the text goes along, since the two messages may overtake one another
    model.send({ ask: text.value });
  };
  text.addEventListener("input", () => {
    model.set("value", text.value);
    model.save_changes();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      event.stopPropagation(); // else the notebook runs the cell
      ask();
    }
  });
  button.addEventListener("click", ask);
  const offer = (message, buffers) => {
    if (!message.file || !buffers.length) return;
    const link = document.createElement("a");
    const where = URL.createObjectURL(new Blob([buffers[0]], { type: message.type }));
    link.href = where;
    link.download = message.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(where), 60000);
  };
  model.on("change:value", show);
  model.on("msg:custom", offer);
  show();
  return () => {
    model.off("change:value", show);
    model.off("msg:custom", offer);
  };
}
export default { render };
