"""Dataset loaders, one module for each format of public datasets and of plain tables (docs/data.md lists them)."""
