"""Writing a card: the image proven first, the right disk, the first block last, everything read back, the first boot
prepared in the way that the image really uses, and success only on the board's own receipt."""
