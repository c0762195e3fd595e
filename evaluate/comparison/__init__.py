"""Which model for which module, at what cost: grids of mixes, their costs, and the cheapest that loses too little."""
