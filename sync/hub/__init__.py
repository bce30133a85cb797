"""The other end of the wire: takes what devices send, commits it once, receipts it, and shows it to clinicians.

`operations` and `server` are what a person calls; `ingest` is the only way in; `schema` is what is kept.
"""
