"""What the tests share: servers, and the interpreted twin of ``valkeep.wire``."""
