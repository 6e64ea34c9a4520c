"""The pure core: what an order's facts are, what follows from them, what is owed. No I/O, clock or chance."""
