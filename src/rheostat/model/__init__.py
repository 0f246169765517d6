"""Pure, immutable values: no clock, no input or output, nothing but the standard library and `rheostat.errors`."""
