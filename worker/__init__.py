"""cartsync: reads order events from Kafka, computes carts, keeps payment providers in agreement with them."""

__version__ = "0.1.0"
