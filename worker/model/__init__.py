"""The nouns that everybody speaks of: order, account, exchange, provider. Pure."""
