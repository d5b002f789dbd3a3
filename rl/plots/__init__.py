"""Pictures of runs and evaluations: read, reckon, draw. docs/figures.md defines every number drawn."""
