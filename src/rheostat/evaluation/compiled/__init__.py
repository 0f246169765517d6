"""How settings become functions; `rheostat.evaluation.compile` is the entrance.

`operand` holds what generated code works on and calls, `logic` turns conditions into a graph of two-valued
nodes, `variable` knows how to fetch what the nodes read, and `source` writes the functions.
"""
