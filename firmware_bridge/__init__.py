"""Sensors in: from a device's bytes to `EcgRecording`, `FundusPhoto` and `VitalSign`.

`sources` opens any of them by name. `decoders` turn bytes into values and do no I/O, `ports` do I/O and no decoding,
`formats` read files, and `simulators` stand in for devices: each is a source, or a device, like any other.
"""
