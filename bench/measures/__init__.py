"""The measurements, one in each file; each is a function of the options that gives figures."""
