"""Decoders: bytes in, values out, no I/O. One module a family of devices.

A serial board's decoder has `feed(bytes) -> list[Block | Corrupt | Announcement]`: it takes bytes cut anywhere, never
raises on what they hold, and keeps at most one incomplete frame. A Bluetooth characteristic arrives whole, so its
decoder is a function of the bytes that raises `DecodeError`.
"""
