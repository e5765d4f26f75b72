/*
Ends processes at one call of all those that change something outside of them.

Preloaded (ld.so(8)) into a service and whatever it starts, this counts the calls that change the volume, the database's
file or what PostgreSQL is sent, over all processes and threads together, and when the count reaches the wanted one
sends SIGKILL before the call is made: to every process that is preloaded so (KILL_ALL), or to the calling one alone.
The count of strace's --inject is one for each thread, which is why it cannot name every point.

CRASH_STATE is a file of struct state; CRASH_FOLDERS are the folders that count, separated by colons. Below a folder
`logs` nothing counts.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_PROCESSES = 256, KILL_ALL = 1 };

struct state {
    _Atomic int32_t count, at, mode, processes;
    _Atomic int32_t pids[MOST_PROCESSES];
    char what[512]; /* the call that was not made */
};

static struct state *state;
static const char *folders;
static int trace = -1;

static void enroll(void) {
    int place = atomic_fetch_add(&state->processes, 1);
    if (place < MOST_PROCESSES) state->pids[place] = getpid();
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CRASH_STATE"), *told = getenv("CRASH_TRACE");
    folders = getenv("CRASH_FOLDERS");
    if (!path || !folders) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (state == MAP_FAILED) { state = NULL; return; }
    if (told) trace = syscall(SYS_openat, AT_FDCWD, told, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    pthread_atfork(NULL, NULL, enroll);
    enroll();
}

static int counts(const char *path) {
    for (const char *folder = folders; *folder;) {
        size_t length = strcspn(folder, ":");
        if (!strncmp(path, folder, length) && (path[length] == '/' || !path[length]))
            return strncmp(path + length, "/logs/", 6) != 0;
        folder += length + (folder[length] == ':');
    }
    return 0;
}

static void reach(const char *call, const char *path) {
    int number = atomic_fetch_add(&state->count, 1) + 1;
    if (trace >= 0) {
        char line[700];
        int length = snprintf(line, sizeof line, "%d %d %s %s\n", number, (int)getpid(), call, path);
        syscall(SYS_write, trace, line, length);
    }
    if (number != state->at) return;
    snprintf(state->what, sizeof state->what, "%s %s", call, path);
    if (state->mode == KILL_ALL)
        for (int place = 0; place < state->processes && place < MOST_PROCESSES; place++)
            if (state->pids[place] != getpid()) kill(state->pids[place], SIGKILL);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void at_path(const char *call, int folder, const char *path) {
    char whole[1024] = "", link[64];
    if (!state || !path) return;
    if (*path != '/') {
        ssize_t length;
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        if ((length = readlink(link, whole, 500)) < 0) return;
        whole[length] = '/';
        strncpy(whole + length + 1, path, sizeof whole - length - 2);
        path = whole;
    }
    if (counts(path)) reach(call, path);
}

static void at_fd(const char *call, int fd) {
    char link[64], path[512];
    if (!state) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    if (counts(path)) reach(call, path);
}

static void at_socket(const char *call, int fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (!state || getpeername(fd, (struct sockaddr *)&peer, &length)) return;
    if (peer.ss_family == AF_INET || peer.ss_family == AF_INET6) reach(call, "the database");
}

#define REAL(result, name, types) \
    static result (*real) types; \
    if (!real) real = dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        mode_t mode = 0; \
        va_list rest; \
        va_start(rest, flags); \
        if (flags & (O_CREAT | __O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest); \
        REAL(int, name, (const char *, int, ...)); \
        if (flags & (O_CREAT | O_TRUNC)) at_path(#name, AT_FDCWD, path); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        mode_t mode = 0; \
        va_list rest; \
        va_start(rest, flags); \
        if (flags & (O_CREAT | __O_TMPFILE)) mode = va_arg(rest, mode_t); \
        va_end(rest); \
        REAL(int, name, (int, const char *, int, ...)); \
        if (flags & (O_CREAT | O_TRUNC)) at_path(#name, folder, path); \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define ON_FD(result, name, types, arguments) \
    result name types { \
        REAL(result, name, types); \
        at_fd(#name, fd); \
        return real arguments; \
    }
ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FD(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FD(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
ON_FD(int, fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
ON_FD(int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, syncfs, (int fd), (fd))
ON_FD(int, sync_file_range, (int fd, off64_t at, off64_t size, unsigned flags), (fd, at, size, flags))
ON_FD(int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_FD(int, futimens, (int fd, const struct timespec times[2]), (fd, times))

#define ON_PATH(name, types, arguments) \
    int name types { \
        REAL(int, name, types); \
        at_path(#name, AT_FDCWD, path); \
        return real arguments; \
    }
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rmdir, (const char *path), (path))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(chmod, (const char *path, mode_t mode), (path, mode))
ON_PATH(truncate, (const char *path, off_t size), (path, size))

#define AT_PATH(name, types, arguments) \
    int name types { \
        REAL(int, name, types); \
        at_path(#name, folder, path); \
        return real arguments; \
    }
AT_PATH(unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
AT_PATH(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode))
AT_PATH(fchmodat, (int folder, const char *path, mode_t mode, int flags), (folder, path, mode, flags))
AT_PATH(utimensat, (int folder, const char *path, const struct timespec times[2], int flags),
        (folder, path, times, flags))

#define ON_NEW_PATH(name, types, arguments) \
    int name types { \
        REAL(int, name, types); \
        at_path(#name, AT_FDCWD, path); \
        return real arguments; \
    }
ON_NEW_PATH(rename, (const char *old, const char *path), (old, path))
ON_NEW_PATH(link, (const char *old, const char *path), (old, path))
ON_NEW_PATH(symlink, (const char *old, const char *path), (old, path))

#define AT_NEW_PATH(name, types, arguments) \
    int name types { \
        REAL(int, name, types); \
        at_path(#name, folder, path); \
        return real arguments; \
    }
AT_NEW_PATH(renameat, (int from, const char *old, int folder, const char *path), (from, old, folder, path))
AT_NEW_PATH(renameat2, (int from, const char *old, int folder, const char *path, unsigned flags),
            (from, old, folder, path, flags))
AT_NEW_PATH(linkat, (int from, const char *old, int folder, const char *path, int flags),
            (from, old, folder, path, flags))
AT_NEW_PATH(symlinkat, (const char *old, int folder, const char *path), (old, folder, path))

ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags) {
    REAL(ssize_t, copy_file_range, (int, off64_t *, int, off64_t *, size_t, unsigned));
    at_fd("copy_file_range", fd);
    return real(in, from, fd, to, size, flags);
}

ssize_t sendfile(int fd, int in, off_t *from, size_t size) {
    REAL(ssize_t, sendfile, (int, int, off_t *, size_t));
    at_fd("sendfile", fd);
    return real(fd, in, from, size);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(ssize_t, send, (int, const void *, size_t, int));
    at_socket("send", fd);
    return real(fd, data, size, flags);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    REAL(ssize_t, sendto, (int, const void *, size_t, int, const struct sockaddr *, socklen_t));
    at_socket("sendto", fd);
    return real(fd, data, size, flags, to, length);
}
