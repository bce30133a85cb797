/* A hub's disk that fails: what writes or syncs files of a folder `hub` below AIDPOST_FAIL_DIR gets the error whose
 * number stands in the file AIDPOST_FAIL, for as long as that file is there. With `s` behind the number only syncs
 * fail. LD_PRELOAD it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static int fails(int fd, int sync) {
    const char *folder = getenv("AIDPOST_FAIL_DIR"), *flag = getenv("AIDPOST_FAIL");
    char link[64], path[PATH_MAX], said[16];
    if (folder == NULL || flag == NULL || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0 || strstr(path + strlen(folder), "/hub/") == NULL) return 0;
    int from = REAL(open)(flag, O_RDONLY | O_CLOEXEC);
    if (from < 0) return 0;
    length = read(from, said, sizeof said - 1);
    close(from);
    if (length <= 0) return 0;
    said[length] = 0;
    if (!sync && strchr(said, 's') != NULL) return 0;
    errno = atoi(said);
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) { return fails(fd, 0) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(fd, 0) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails(fd, 0) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int ftruncate(int fd, off_t size) { return fails(fd, 0) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails(fd, 0) ? -1 : REAL(ftruncate64)(fd, size); }
int fsync(int fd) { return fails(fd, 1) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(fd, 1) ? -1 : REAL(fdatasync)(fd); }
