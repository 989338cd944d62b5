/* The n-th call that brings something to a disk fails, whoever makes it: Python, SQLite or Arrow. For LD_PRELOAD.

   Counted are writes to files below the folder of $FAIL_BELOW, fsync and fdatasync of them, and renames into it, once
   fail_at(n, error) has been called; n = 0 counts and lets all pass. failed_calls() tells how many there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long target = -1, seen;
static int error_number, persistent;

void fail_at(long n, int error, int from_then_on) { target = n, error_number = error, persistent = from_then_on, seen = 0; }
long failed_calls(void) { return seen; }

static int below(const char *path) {
    const char *folder = getenv("FAIL_BELOW");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(int counted) {
    if (target < 0 || !counted) return 0;
    long call = __sync_add_and_fetch(&seen, 1);
    if (target == 0 || (persistent ? call < target : call != target)) return 0;
    errno = error_number;
    return 1;
}

static int file_below(int fd) {
    char name[64], path[PATH_MAX + 1];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, PATH_MAX);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int new_path(int folder, const char *path) {
    char name[64], above[PATH_MAX + 1];
    if (path[0] == '/') return below(path);
    if (folder < 0) return getcwd(above, PATH_MAX) && below(above);
    snprintf(name, sizeof name, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(name, above, PATH_MAX);
    if (length < 0) return 0;
    above[length] = 0;
    return below(above);
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
ssize_t write(int fd, const void *data, size_t n) { return fails(file_below(fd)) ? -1 : REAL(write)(fd, data, n); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return fails(file_below(fd)) ? -1 : REAL(pwrite)(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return fails(file_below(fd)) ? -1 : REAL(pwrite64)(fd, data, n, at); }
ssize_t writev(int fd, const struct iovec *data, int n) { return fails(file_below(fd)) ? -1 : REAL(writev)(fd, data, n); }
int fsync(int fd) { return fails(file_below(fd)) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(file_below(fd)) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { return fails(file_below(fd)) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fails(file_below(fd)) ? -1 : REAL(ftruncate64)(fd, n); }
int rename(const char *a, const char *b) { return fails(new_path(-1, b)) ? -1 : REAL(rename)(a, b); }
int renameat(int f, const char *a, int g, const char *b) { return fails(new_path(g, b)) ? -1 : REAL(renameat)(f, a, g, b); }
