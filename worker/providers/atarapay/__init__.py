"""AtaraPay."""
