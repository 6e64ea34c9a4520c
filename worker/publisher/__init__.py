"""Sends updates to providers: many orders concurrently, one attempt in flight per order. All outbound HTTP to them."""
