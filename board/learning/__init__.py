"""A device in federated rounds: what it keeps of each, what it answers, and when it has time to."""
