/* How far each file of a server is synced to disk, for `synced.py`: loaded into the server by LD_PRELOAD.
 *
 * A process that is killed loses nothing that it wrote: the bytes are in the page cache. To show what a machine loses that goes down, somebody has
 * to know which bytes were synced. So fsync and fdatasync note, after they returned 0, the size that the file had when they were *called*
 * (what another thread appended meanwhile may not be covered), in a table that is mapped from a file and therefore survives SIGKILL:
 *
 *     CAPACITY entries of | u64 inode | u64 synced bytes |      inode 0: free
 *
 * One table for each node, open addressing, entries are never moved; claimed by compare-and-swap, because the server syncs in background
 * threads and forked children. Inode numbers are used again, so unlink, and rename over a file, take its entry's bytes back to 0.
 * ftruncate can only shorten what is synced. sync_file_range promises nothing about power loss (its manual page) and is not noted.
 *
 * System calls are made directly: nothing but getenv, open, mmap and syscall is needed from the C library, in versions that every glibc
 * since 2.17 has, so the same object loads into servers that bring a C library of their own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAPACITY 4096

struct entry {
    uint64_t inode, synced;
};

static struct entry *table;

__attribute__((constructor)) static void map_table(void) {
    const char *path = getenv("VALKEEP_SYNCED");
    if (path == NULL) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, CAPACITY * sizeof(struct entry), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) table = mapped;
    syscall(SYS_close, fd);
}

static struct entry *entry_of(uint64_t inode, int make) {
    for (unsigned step = 0; step < CAPACITY; step++) {
        struct entry *at = &table[(inode + step) % CAPACITY];
        uint64_t seen = __atomic_load_n(&at->inode, __ATOMIC_ACQUIRE);
        if (seen == inode) return at;
        if (seen != 0) continue;
        if (!make) return NULL;
        if (__atomic_compare_exchange_n(&at->inode, &seen, inode, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) || seen == inode) return at;
    }
    return NULL;
}

static void forget(const char *path) {
    struct stat found;
    int kept = errno;
    if (syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(found.st_mode)) {
        struct entry *at = entry_of(found.st_ino, 0);
        if (at != NULL) __atomic_store_n(&at->synced, 0, __ATOMIC_RELEASE);
    }
    errno = kept;
}

static int sync_and_note(long call, int fd) {
    struct stat before;
    int known = table != NULL && syscall(SYS_fstat, fd, &before) == 0 && S_ISREG(before.st_mode);
    int result = (int)syscall(call, fd);
    if (result == 0 && known) {
        struct entry *at = entry_of(before.st_ino, 1);
        uint64_t size = (uint64_t)before.st_size;
        uint64_t seen = at == NULL ? size : __atomic_load_n(&at->synced, __ATOMIC_ACQUIRE);
        while (seen < size && !__atomic_compare_exchange_n(&at->synced, &seen, size, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        }
    }
    return result;
}

int fsync(int fd) { return sync_and_note(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_and_note(SYS_fdatasync, fd); }

int unlink(const char *path) {
    if (table != NULL) forget(path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rename(const char *from, const char *to) {
    if (table != NULL) forget(to);
    return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int ftruncate64(int fd, off_t length) {
    struct stat found;
    int result = (int)syscall(SYS_ftruncate, fd, length);
    if (result == 0 && table != NULL && syscall(SYS_fstat, fd, &found) == 0) {
        struct entry *at = entry_of(found.st_ino, 0);
        uint64_t limit = (uint64_t)length;
        uint64_t seen = at == NULL ? 0 : __atomic_load_n(&at->synced, __ATOMIC_ACQUIRE);
        while (seen > limit && !__atomic_compare_exchange_n(&at->synced, &seen, limit, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        }
    }
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
