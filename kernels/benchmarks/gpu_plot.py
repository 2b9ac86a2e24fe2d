"""The plot of the GPU benchmark: milliseconds of every implementation at every shape, over the floor of bytes."""

from pathlib import Path

from gpu_measure import Row


def plot(rows: list[Row], path: Path, title: str) -> None:
    """Bars from the floor up, one group a shape, logarithmic; rows without a time are left out."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.ms == row.ms]
    groups = list(dict.fromkeys((row.operator, row.shape, row.what) for row in rows))
    names = list(dict.fromkeys(row.way for row in rows))
    figure = Figure(figsize=(9, 0.75 + 0.32 * (len(rows) + len(groups))), layout="constrained")
    axes = figure.subplots()
    at, ticks, labels = 0.0, [], []
    for group in groups:
        members = [row for row in rows if (row.operator, row.shape, row.what) == group]
        for row in members:
            color = f"C{names.index(row.way) % 10}"
            axes.barh(at, row.ms, color=color, height=0.8)
            axes.text(row.ms * 1.05, at, f"{row.ms:.3g}", va="center", fontsize=7)
            axes.plot([row.floor_ms] * 2, [at - 0.5, at + 0.5], color="black", linewidth=1.5)
            at += 1
        ticks.append(at - 1 - (len(members) - 1) / 2)
        labels.append(f"{group[0]} {','.join(map(str, group[1]))}\n{group[2]}")
        at += 1
    for i, name in enumerate(names):
        axes.barh(0, 0, color=f"C{i % 10}", label=name)
    axes.plot([], [], color="black", linewidth=1.5, label="floor: every byte once")
    axes.set(xscale="log", xlabel="milliseconds a call", title=title)
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    figure.legend(fontsize=7, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
