"""DSPy modules: MOPE, MOTE and MAR, and the program composed of them."""
