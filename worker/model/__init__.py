"""The types that all parts share: order, account, exchange, provider, job. Pure."""
