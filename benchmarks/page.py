from pathlib import Path
DIRECTORY=Path(__file__).parents[1] / "docs/explanation/price"
FIGURES="figures.json"
def write(): ...
