"""The orders of a partition: the workload of its owner.

Events, outcomes, decisions of the outbox and operators' commands become one transaction (`batch`); once it is
committed, it is applied to the table of orders, and the outbox decides what is to be sent.
"""
