"""Client libraries under test, one file each. A module's ``DRIVER`` is its `driver.Driver`; it imports its library when it is opened."""
