"""What comes due at accounts instead of with orders: delivery reports, and lists that are read.

Due records of the state topic, not timers: the owner of a partition holds them, looks at them when they are due, and
writes what becomes of them in its transactions.
"""
