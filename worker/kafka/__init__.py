"""The ports' Kafka side: the event topic as a group member, and the state topic in fenced transactions."""
