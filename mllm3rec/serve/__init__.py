"""Online service: a compiled program behind HTTP and the Model Context Protocol, with budgets and a fallback."""
