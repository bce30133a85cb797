"""Updates that cannot brick: two release folders with their own environment, one link that is switched atomically, a
trial that the new release must pass, and the way back. What is installed is decided by signed metadata (TUF)."""
