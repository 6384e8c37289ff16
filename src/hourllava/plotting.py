"""The look of all our pictures: colours, style, and files with the same bytes for the same data.

Drawn on `Figure` objects without pyplot: no windows, no global state.
"""

from pathlib import Path
from typing import Any

from hourllava.errors import ConfigError
from hourllava.files import replacing

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ConfigError("figures need matplotlib; run: pip install 'hourllava[world]'") from error

INK, MUTED, GRID, OWN, OTHER = "#22283a", "#6b7280", "#e4e7ec", "#2f6db3", "#c3c9d4"
TOPIC_COLOURS = {
    "temporality": "#2f6db3",
    "spatiality": "#2a9d8f",
    "object": "#d1803a",
    "action": "#b8475b",
    "scene": "#7a9a3c",
    "event": "#7b5ea7",
}
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.hashsalt": "hourllava",
    "svg.fonttype": "none",
}
_DPI = 150


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure that can be saved without a display."""
    figure = Figure(figsize=(width_inches, height_inches), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Save as the ending says (.png, .svg), whole or not at all, without a date inside; returns `path`."""
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=_DPI, metadata=metadata)
    return path


def styled_axes(axes: Axes, title: str, *, grid: str = "y") -> None:
    """Give axes the look that all our charts share: title at the left, light grid on one axis, no box."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=12)
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
