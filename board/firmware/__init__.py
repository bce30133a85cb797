"""Firmware into microcontrollers: ESP32 family, STM32, RP2040/RP2350 and other UF2 drives, AVR. One way for all: prove
the image, know the board, write, read back, start it and ask it who it is."""
