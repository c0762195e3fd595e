"""Bulk engine: frozen programs over whole catalogues, on an event loop instead of threads."""
