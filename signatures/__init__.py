"""What is asked of a model: the motivational schema, the types and rows that flow, and the DSPy signatures."""
