"""`cartsync state …`: the whole state, as lines, and held against the input that it was made of."""
