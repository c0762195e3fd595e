"""DSPy signatures of MOPE, MOTE and MAR, the motivational schema, and the data types and rows between modules."""
