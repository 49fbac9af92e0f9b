/* Fault injection for test_disk_full.py: from one call on, the disk is full.
 *
 * Loaded by LD_PRELOAD. Counts the calls that need space on files under the folder $FULL_UNDER: opening a file to
 * write, write, fsync, rename, mkdir, truncate. The call number $FULL_AT and all after it fail with ENOSPC; 0: none.
 * With $FULL_KILLS, that call is not made, and the process ends as by kill -9.
 * Each call appends a line, its name and its path, to the file $FULL_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int calls;

/* Whether this call fails. `path` is absolute, or relative to the working folder, which lies under $FULL_UNDER. */
static int full(const char *name, const char *path) {
    const char *under = getenv("FULL_UNDER"), *at = getenv("FULL_AT"), *log = getenv("FULL_LOG");
    if (!under || !path || (path[0] == '/' && strncmp(path, under, strlen(under)) != 0)) return 0;
    int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST), first = at ? atoi(at) : 0, before = errno;
    int fails = first > 0 && number >= first;
    if (log) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%s %s%s\n", name, path, fails ? " (full)" : "");
        int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (file >= 0) {
            if (syscall(SYS_write, file, line, length) < 0) abort();
            syscall(SYS_close, file);
        }
    }
    if (fails && getenv("FULL_KILLS")) raise(SIGKILL);
    errno = fails ? ENOSPC : before;
    return fails;
}

static int full_file(const char *name, int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/') return 0; /* a pipe or a socket */
    path[length] = 0;
    return full(name, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FILE(result, name, parameters, arguments) \
    result name parameters { return full_file(#name, file) ? -1 : REAL(name) arguments; }
#define ON_PATH(result, name, parameters, arguments) \
    result name parameters { return full(#name, path) ? -1 : REAL(name) arguments; }
#define WRITES (O_WRONLY | O_RDWR | O_CREAT)
#define OPEN(name, parameters, arguments) \
    int name parameters { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return (flags & WRITES) && full(#name, path) ? -1 : REAL(name) arguments; \
    }

ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))
ON_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, rename, (const char *path, const char *to), (path, to))
ON_PATH(int, renameat, (int from, const char *path, int into, const char *to), (from, path, into, to))
OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
