"""Figures in notebooks: how they are shown, and figures that answer to sliders."""

import os
from collections.abc import Callable

STATIC = "LAB_STATIC"  # set while pages are rendered, where no kernel will answer a slider


def in_notebook() -> None:
    """Show matplotlib and plotly figures below a cell, also in an exported page; for a notebook's first cell."""
    import plotly.io
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats

    select_figure_formats(get_ipython(), {"png"}, bbox_inches="tight")
    plotly.io.renderers.default = "plotly_mimetype+notebook"


def explore(draw: Callable, **controls) -> None:
    """`draw(name=value, …)` below a slider for each name, drawn anew when one is moved.

    `controls` are ipywidgets, such as `FloatSlider(value=0.1, min=0.01, max=1)`. In a rendered page there is the figure
    for the values that they start with, and a line that says them.
    """
    if os.environ.get(STATIC):
        from IPython.display import display

        values = {name: control.value for name, control in controls.items()}
        print("with " + ", ".join(f"{name} = {value}" for name, value in values.items()) + " (in a notebook: sliders)")
        display(draw(**values))
        return
    from ipywidgets import interact

    for control in controls.values():
        if hasattr(control, "continuous_update"):
            control.continuous_update = False  # one drawing when the slider is let go
        control.style.description_width = "9em"  # Jupyter cuts longer names at 80 pixels
        control.layout.width = "36em"  # room to hit one of hundreds of values
    interact(lambda **values: draw(**values), **controls)  # not `draw`: its other parameters would get sliders too
