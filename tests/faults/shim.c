/* Faults of the machine, for one process: writes that fail from the n-th on, a read-only disk, a clock that jumps.
 *
 * Preloaded, it stands before libc, so that it hits Python, torch, safetensors, pyarrow and SQLite alike. It does nothing
 * until it is told to, by ctypes, and counts only what goes to regular files below one folder.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static long first_failing, last_failing, counted;
static int error_number, read_only;
static double jump_at;
static long jump_seconds;

void count_below(const char *path) {
    strncpy(folder, path, sizeof folder - 1);
    folder_length = strlen(folder);
    counted = 0;
}
long writes_counted(void) { return counted; }
void fail_writes(long first, long last, int error) {
    first_failing = first;
    last_failing = last;
    error_number = error;
}
void make_read_only(void) { read_only = 1; }

static double monotonic(void);
void jump_clock(double after, long seconds) {
    jump_at = monotonic() + after;
    jump_seconds = seconds;
}

#define REAL(name) ((typeof(&name))({ static void *real; if (!real) real = dlsym(RTLD_NEXT, #name); real; }))

static int fails(void) {
    if (read_only) {
        errno = EROFS;
        return 1;
    }
    long number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (!first_failing || number < first_failing || number > last_failing) return 0;
    errno = error_number;
    return 1;
}

static int path_fails(int directory, const char *path) {
    if (!folder_length || !path) return 0;
    char where[PATH_MAX];
    if (path[0] != '/' && directory == AT_FDCWD) {
        if (!getcwd(where, sizeof where)) return 0;
        path = where;
    } else if (path[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t length = readlink(link, where, sizeof where - 1);
        if (length < 0) return 0;
        where[length] = 0;
        path = where;
    }
    return strncmp(path, folder, folder_length) == 0 && fails();
}

static int file_fails(int file) {
    if (!folder_length || file < 0) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    struct stat status;
    if (fstat(file, &status) || !S_ISREG(status.st_mode)) return 0;
    return strncmp(path, folder, folder_length) == 0 && fails();
}

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list more;                                                  \
        va_start(more, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                  \
        if (writes(flags) && path_fails(AT_FDCWD, path)) return -1;    \
        return REAL(name)(path, flags, mode);                          \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                   \
    int name(int directory, const char *path, int flags, ...) {        \
        va_list more;                                                  \
        va_start(more, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                  \
        if (writes(flags) && path_fails(directory, path)) return -1;   \
        return REAL(name)(directory, path, flags, mode);               \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                    \
    FILE *name(const char *path, const char *mode) {                   \
        if (strpbrk(mode, "wa+") && path_fails(AT_FDCWD, path)) return NULL; \
        return REAL(name)(path, mode);                                 \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define ON_FILE(type, name, parameters, file, ...)                     \
    type name parameters { return file_fails(file) ? -1 : REAL(name)(__VA_ARGS__); }
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), file, file, data, size)
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, file, data, size, at)
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, file, data, size, at)
ON_FILE(ssize_t, writev, (int file, const struct iovec *data, int count), file, file, data, count)
ON_FILE(ssize_t, pwritev, (int file, const struct iovec *data, int count, off_t at), file, file, data, count, at)
ON_FILE(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), file, file, from, at, size)
ON_FILE(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), file, file, from, at, size)
ON_FILE(int, ftruncate, (int file, off_t size), file, file, size)
ON_FILE(int, ftruncate64, (int file, off64_t size), file, file, size)
ON_FILE(int, fsync, (int file), file, file)
ON_FILE(int, fdatasync, (int file), file, file)

int mkdir(const char *path, mode_t mode) {
    return path_fails(AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}
int rename(const char *from, const char *to) {
    return path_fails(AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME && jump_seconds && monotonic() >= jump_at) now->tv_sec += jump_seconds;
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
static double monotonic(void) {
    struct timespec now;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}
