"""The device's touch screen: who, the exam as a path, the result, the paper. Server-rendered; nothing from outside."""
