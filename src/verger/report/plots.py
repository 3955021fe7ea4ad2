"""The figures, as what Plotly draws: data and layout. Colours of text and lines are the page's."""

from typing import Any

from verger.report.data import Component

SCREE_COMPONENTS = 100
"""Components on the scree plot at most."""

Figure = dict[str, Any]


def layout(height: int, **more: Any) -> Figure:
    """What all figures have in common."""
    return {
        "height": height,
        "margin": {"l": 52, "r": 14, "t": 10, "b": 46},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit", "size": 13},
        "showlegend": False,
        "dragmode": False,
        **more,
    }


def map_figure() -> Figure:
    """The map; its script gives it coordinates, colours and names."""
    marker = {"size": 7, "line": {"width": 0}}
    points = {"type": "scatter", "mode": "markers", "hoverinfo": "none", "marker": marker}
    axis = {"zeroline": True, "nticks": 7, "automargin": True}
    return {
        "data": [points],
        "layout": layout(560, hovermode="closest", hoverdistance=12, xaxis=axis, yaxis=axis),
    }


def scree_figure(spectrum: list[Component], components: int, texts: dict[str, str]) -> Figure:
    """Bars of the explained variance ratio, a line of its sum, and where the cut is.

    Args:
        spectrum: components by falling variance.
        components: how many of them the matrix has.
        texts: titles by name; see `verger.report.texts`.
    """
    # As many dropped components as are kept show what the cut costs.
    shown = spectrum[: max(2 * components, 10)][:SCREE_COMPONENTS]
    numbers = [component.number for component in shown]
    cut, percent = components + 0.5, texts["percent"]
    hover = f"%{{x}}: %{{y:.2f}}{percent}<extra></extra>"
    bars = {
        "type": "bar",
        "x": numbers,
        "y": [round(100 * component.ratio, 4) for component in shown],
        "name": texts["ratio"],
        "marker": {
            "color": ["#2e86ab" if number <= components else "#9aa5b1" for number in numbers],
            "line": {"width": 0},
        },
        "hovertemplate": hover,
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": numbers,
        "y": [round(100 * component.cumulative, 4) for component in shown],
        "yaxis": "y2",
        "name": texts["cumulative"],
        "line": {"color": "#d1495b", "width": 2.5},
        "hovertemplate": hover,
    }
    shapes = []
    if components < len(spectrum):
        dash = {"color": "#7b8794", "width": 1.5, "dash": "dash"}
        span = {"x0": cut, "x1": cut, "y0": 0, "y1": 1}
        shapes.append({"type": "line", "xref": "x", "yref": "paper", "line": dash, **span})
    return {
        "data": [bars, line],
        "layout": layout(
            360,
            bargap=0.15,
            hovermode="closest",
            margin={"l": 12, "r": 12, "t": 14, "b": 46},
            xaxis={"title": {"text": texts["component"]}, "nticks": 10},
            yaxis=_share_axis(texts, "ratio", rangemode="tozero", nticks=6),
            yaxis2=_share_axis(
                texts,
                "cumulative",
                overlaying="y",
                side="right",
                range=[0, 102],
                showgrid=False,
                tick0=0,
                dtick=20,
            ),
            shapes=shapes,
        ),
    }


def _share_axis(texts: dict[str, str], title: str, **more: Any) -> Figure:
    named = {"text": texts[title], "standoff": 8}
    return {"title": named, "automargin": True, "ticksuffix": texts["percent"], **more}
