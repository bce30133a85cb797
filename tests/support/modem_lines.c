/* LD_PRELOAD: a pseudo-terminal that has modem lines and keeps no parity, as far as a program on it can tell.
 * A real serial port takes both; stm32loader uses them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <termios.h>

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    int saved = errno, result = real(fd, request, argument);
    if (result < 0 && errno == ENOTTY && (request == TIOCMBIS || request == TIOCMBIC || request == TIOCMSET)) {
        errno = saved;
        return 0;
    }
    return result;
}

int tcsetattr(int fd, int when, const struct termios *wanted) {
    int (*real)(int, int, const struct termios *) = (int (*)(int, int, const struct termios *))dlsym(RTLD_NEXT, "tcsetattr");
    int saved = errno, result = real(fd, when, wanted);
    if (result < 0 && errno == EINVAL) {
        errno = saved;
        return 0;
    }
    return result;
}
