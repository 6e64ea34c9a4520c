"""`cartsync console`: the pages over what Kafka holds, put together; and the users who may see them."""
