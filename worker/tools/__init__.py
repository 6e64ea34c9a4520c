"""Programs that build a worker and drive it, and what they need on a machine without Kafka."""
