"""What becomes of a record or a command on its way to a given target. Pure."""
