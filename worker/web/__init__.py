"""The HTTP servers: the private port of workers and receivers, and the receiver's public port."""
