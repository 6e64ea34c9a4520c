"""The Kafka adapters: the event topic as a member of a consumer group, the state topic in fenced transactions."""
