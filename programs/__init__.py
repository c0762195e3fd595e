"""How a model is asked: MOPE, MOTE and MAR as DSPy modules, and the composed program."""
