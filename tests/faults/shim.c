/* Traces what a process does to the files below a folder, in order: the raw material of a power cut.
 *
 * LD_PRELOAD this into the process. AIDPOST_TRACE_DIR is the folder, AIDPOST_TRACE the file that the records go to.
 * Each record is: op (1 byte), a and b (int64), path length (uint32), data length (uint32), path, data. Writes and the
 * record of them are made under one lock, so that the order of the trace is the order of the operations. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 'o', WRITE = 'w', TRUNCATE = 't', SYNC = 's', RENAME = 'r', UNLINK = 'u', MKDIR = 'd', SYMLINK = 'l', SYNC_ALL = 'S' };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("AIDPOST_TRACE_DIR"), *file = getenv("AIDPOST_TRACE");
    if (folder == NULL || file == NULL || realpath(folder, root) == NULL) return;
    root_length = strlen(root);
    trace = REAL(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return trace >= 0 && fd != trace && below(path);
}

static int absolute(int folder, const char *name, char *path) {
    if (trace < 0 || name == NULL) return 0;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else if (folder == AT_FDCWD) {
        char here[PATH_MAX];
        if (getcwd(here, sizeof here) == NULL) return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", here, name) >= PATH_MAX) return 0;
    } else {
        char link[64], base[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, base, PATH_MAX - 1);
        if (length < 0) return 0;
        base[length] = 0;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) return 0;
    }
    return below(path);
}

static void put(const void *data, size_t size) {
    const char *at = data;
    while (size > 0) {
        ssize_t wrote = REAL(write)(trace, at, size);
        if (wrote <= 0) abort();
        at += wrote;
        size -= (size_t)wrote;
    }
}

static void record(char op, int64_t a, int64_t b, const char *path, const void *data, size_t size) {
    const char *relative = path + root_length + (path[root_length] == '/');
    uint32_t lengths[2] = {(uint32_t)strlen(relative), (uint32_t)size};
    int saved = errno;
    put(&op, 1), put(&a, 8), put(&b, 8), put(lengths, 8), put(relative, lengths[0]), put(data, size);
    errno = saved;
}

static int opened(int fd, int existed, int flags) {
    char path[PATH_MAX];
    if (fd >= 0 && path_of(fd, path) && !(flags & O_DIRECTORY) && (flags & (O_CREAT | O_TRUNC)))
        if (!existed || (flags & O_TRUNC)) record(OPEN, existed, (flags & O_TRUNC) != 0, path, "", 0);
    return fd;
}

#define OPENER(name, folder, ...)                                                                                      \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0;                                        \
    va_end(rest);                                                                                                      \
    char path[PATH_MAX];                                                                                               \
    if (!absolute(folder, file, path)) return REAL(name)(__VA_ARGS__, flags, mode);                                    \
    pthread_mutex_lock(&lock);                                                                                         \
    int existed = access(path, F_OK) == 0;                                                                             \
    int fd = opened(REAL(name)(__VA_ARGS__, flags, mode), existed, flags);                                             \
    pthread_mutex_unlock(&lock);                                                                                       \
    return fd

int open(const char *file, int flags, ...) { OPENER(open, AT_FDCWD, file); }
int open64(const char *file, int flags, ...) { OPENER(open64, AT_FDCWD, file); }
int openat(int folder, const char *file, int flags, ...) { OPENER(openat, folder, folder, file); }
int openat64(int folder, const char *file, int flags, ...) { OPENER(openat64, folder, folder, file); }

#define TRACED(call, ok, ...)                                                                                          \
    char path[PATH_MAX];                                                                                               \
    if (!path_of(fd, path)) return call;                                                                               \
    pthread_mutex_lock(&lock);                                                                                         \
    __typeof__(call) result = call;                                                                                    \
    if (ok) record(__VA_ARGS__);                                                                                       \
    pthread_mutex_unlock(&lock);                                                                                       \
    return result

ssize_t write(int fd, const void *data, size_t size) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    TRACED(REAL(write)(fd, data, size), result > 0, WRITE, at, 0, path, data, (size_t)result);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    TRACED(REAL(pwrite)(fd, data, size, at), result > 0, WRITE, at, 0, path, data, (size_t)result);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    TRACED(REAL(pwrite64)(fd, data, size, at), result > 0, WRITE, at, 0, path, data, (size_t)result);
}
int ftruncate(int fd, off_t size) { TRACED(REAL(ftruncate)(fd, size), result == 0, TRUNCATE, size, 0, path, "", 0); }
int ftruncate64(int fd, off64_t size) { TRACED(REAL(ftruncate64)(fd, size), result == 0, TRUNCATE, size, 0, path, "", 0); }
int fsync(int fd) { TRACED(REAL(fsync)(fd), result == 0, SYNC, 0, 0, path, "", 0); }
int fdatasync(int fd) { TRACED(REAL(fdatasync)(fd), result == 0, SYNC, 1, 0, path, "", 0); }

static int renamed(int result, const char *from, const char *to) {
    if (result == 0) record(RENAME, 0, 0, from, to + root_length + 1, strlen(to + root_length + 1));
    return result;
}
int rename(const char *from, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!absolute(AT_FDCWD, from, a) || !absolute(AT_FDCWD, to, b)) return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = renamed(REAL(rename)(from, to), a, b);
    pthread_mutex_unlock(&lock);
    return result;
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!absolute(from_folder, from, a) || !absolute(to_folder, to, b)) return REAL(renameat)(from_folder, from, to_folder, to);
    pthread_mutex_lock(&lock);
    int result = renamed(REAL(renameat)(from_folder, from, to_folder, to), a, b);
    pthread_mutex_unlock(&lock);
    return result;
}

#define NAMED(folder, name, call, op)                                                                                  \
    char path[PATH_MAX];                                                                                               \
    if (!absolute(folder, name, path)) return call;                                                                    \
    pthread_mutex_lock(&lock);                                                                                         \
    int result = call;                                                                                                 \
    if (result == 0) record(op, 0, 0, path, "", 0);                                                                    \
    pthread_mutex_unlock(&lock);                                                                                       \
    return result

int unlink(const char *name) { NAMED(AT_FDCWD, name, REAL(unlink)(name), UNLINK); }
int unlinkat(int folder, const char *name, int flags) { NAMED(folder, name, REAL(unlinkat)(folder, name, flags), UNLINK); }
int mkdir(const char *name, mode_t mode) { NAMED(AT_FDCWD, name, REAL(mkdir)(name, mode), MKDIR); }
int mkdirat(int folder, const char *name, mode_t mode) { NAMED(folder, name, REAL(mkdirat)(folder, name, mode), MKDIR); }
int rmdir(const char *name) { NAMED(AT_FDCWD, name, REAL(rmdir)(name), UNLINK); }

static int linked(const char *target, int folder, const char *name, int result) {
    char path[PATH_MAX];
    if (result == 0 && absolute(folder, name, path)) record(SYMLINK, 0, 0, path, target, strlen(target));
    return result;
}
int symlink(const char *target, const char *name) {
    pthread_mutex_lock(&lock);
    int result = linked(target, AT_FDCWD, name, REAL(symlink)(target, name));
    pthread_mutex_unlock(&lock);
    return result;
}
int symlinkat(const char *target, int folder, const char *name) {
    pthread_mutex_lock(&lock);
    int result = linked(target, folder, name, REAL(symlinkat)(target, folder, name));
    pthread_mutex_unlock(&lock);
    return result;
}
void sync(void) {
    pthread_mutex_lock(&lock);
    REAL(sync)();
    if (trace >= 0) record(SYNC_ALL, 0, 0, root, "", 0);
    pthread_mutex_unlock(&lock);
}
