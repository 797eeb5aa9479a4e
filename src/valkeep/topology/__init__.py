"""Immutable descriptions: what should run (`spec`), what was observed (`view`), key slots, and the plan from the one to the other."""
