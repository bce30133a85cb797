/* Loaded before libc (LD_PRELOAD): one file has one bad block, as a worn memory card does. Which file says its inode,
 * so that what is put in its place later is whole: BAD_INODE, BAD_AT (the offset of 4096 bytes that cannot be read). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int bad(int file, off64_t at, size_t size)
{
    const char *inode = getenv("BAD_INODE"), *where = getenv("BAD_AT");
    struct stat found;
    if (!inode || !where || fstat(file, &found) || found.st_ino != strtoull(inode, 0, 10))
        return 0;
    off64_t block = atoll(where);
    return at < block + 4096 && at + (off64_t)size > block;
}

ssize_t pread64(int file, void *into, size_t size, off64_t at)
{
    ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    if (bad(file, at, size)) {
        errno = EIO;
        return -1;
    }
    return real(file, into, size, at);
}

ssize_t pread(int file, void *into, size_t size, off_t at)
{
    return pread64(file, into, size, at);
}

ssize_t read(int file, void *into, size_t size)
{
    ssize_t (*real)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    off64_t at = lseek(file, 0, SEEK_CUR);
    if (at >= 0 && bad(file, at, size)) {
        errno = EIO;
        return -1;
    }
    return real(file, into, size);
}
