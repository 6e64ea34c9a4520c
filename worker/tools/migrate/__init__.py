"""`cartsync migrate …`: the state of one deployment becomes that of another."""
