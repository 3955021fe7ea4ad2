"""What a notebook of Databricks finds there, played for the tests: `dbutils` and `displayHTML`."""

from types import SimpleNamespace

from IPython.display import HTML, display


class Widgets:
    """Parameters: what a job gave, else the default of the notebook."""

    def __init__(self, given: dict[str, str]) -> None:
        self.values = dict(given)

    def text(self, name: str, default: str) -> None:
        self.values.setdefault(name, default)

    def get(self, name: str) -> str:
        return self.values[name]


def dbutils(**given: str) -> SimpleNamespace:
    """As a job with these parameters has it; what the notebook ends with is printed."""
    notebook = SimpleNamespace(exit=lambda value: print("exit:", value))  # noqa: T201
    return SimpleNamespace(widgets=Widgets(given), notebook=notebook)


def display_html(text: str) -> None:
    display(HTML(text))
