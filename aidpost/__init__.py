"""Aidpost: point-of-care diagnostics on a handheld device. The version is the distribution's."""

__version__ = "0.1.0"
