"""Workloads, faults, recorded histories and the checkers that judge them."""
