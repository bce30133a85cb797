"""Devices and patients that do not exist: models of signals, and boards and sensors for other programs to talk to."""
