"""Readers of recordings and photographs kept in files: one module a format."""
