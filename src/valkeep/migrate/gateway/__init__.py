"""What stands between source and target while both run: the one replicates to it, the other from it. `gateway.py` says how."""
