"""Sources that do I/O: files, captures, serial ports, Bluetooth, cameras. Decoding is in `decoders` and `formats`."""
