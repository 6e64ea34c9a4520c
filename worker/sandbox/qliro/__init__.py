"""Qliro's side of orders, as its documentation has it: what the sandbox answers with, and what tests play against."""
