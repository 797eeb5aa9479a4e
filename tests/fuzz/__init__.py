"""The seeded mutator over everything that reads bytes of others: see mutate.py."""
