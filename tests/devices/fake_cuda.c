/* A libcuda.so.1 that shows the one device that CUDA_VISIBLE_DEVICES names by its UUID, as the real one does.
 *
 *     FAKE_CUDA_SHOWS GPU-…,GPU-…    whatever the mask says, show these; empty: none
 *     FAKE_CUDA_MISTAKES GPU-…       show another device where the mask says this one
 *     FAKE_CUDA_STATE F              a file that is read again at every call, with lines of these kinds:
 *
 *         cuInit 999                     what a function returns
 *         cuInit 2 GPU-…                 where the mask says this device; * is any
 *         cuInit 2 GPU-… M 3             the first three times; the file M has a byte for each
 *         calls F                        append the name of each function called, and the mask, to the file F
 *         memory F 1000 300              each card has 1000 MiB, of which a context takes 300; F: fake_memory.h
 *         exclusive                      with memory: a card is in EXCLUSIVE_PROCESS mode
 */
#include "fake_memory.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, UNAVAILABLE = 46, NO_DEVICE = 100, DEVICES = 16 };

typedef struct { unsigned char bytes[16]; } uuid;

static uuid devices[DEVICES];
static int count;

static void add(const char *text) {
    const char *at = strchr(text, '-');
    if (!at || count == DEVICES) return;
    for (int i = 0; i < 16 && *at; i++) {
        while (*at == '-') at++;
        unsigned byte = 0;
        if (sscanf(at, "%2x", &byte) != 1) return;
        devices[count].bytes[i] = (unsigned char)byte;
        at += 2;
    }
    count++;
}

/* Whether a failure that is to happen so many times, in whichever process, has not happened so often yet. */
static int count_down(const char *mark, int times) {
    int fd = open(mark, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600), more = 0;
    if (fd >= 0 && !flock(fd, LOCK_EX)) more = lseek(fd, 0, SEEK_END) < times && write(fd, "x", 1) == 1;
    if (fd >= 0) close(fd);
    return more;
}

/* What every function does first: tell that it was called, and fail if it is told to. */
static int enter(const char *function) {
    const char *path = getenv("FAKE_CUDA_STATE"), *mask = getenv("CUDA_VISIBLE_DEVICES");
    char line[4096], name[256], value[1024], device[256], mark[1024];
    FILE *file = path ? fopen(path, "re") : NULL;
    int error = OK;
    while (file && fgets(line, sizeof line, file)) {
        int times, words = sscanf(line, "%255s %1023s %255s %1023s %d", name, value, device, mark, &times);
        if (words >= 2 && !strcmp(name, "calls")) {
            int fd = open(value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
            if (fd >= 0) {
                dprintf(fd, "%s %s\n", function, mask ? mask : "");
                close(fd);
            }
        }
        if (words < 2 || strcmp(name, function)) continue;
        if (words > 2 && strcmp(device, "*") && (!mask || strcmp(mask, device))) continue;
        if (words == 5 && !count_down(mark, times)) continue;
        error = atoi(value);
    }
    if (file) fclose(file);
    return error;
}

/* Take memory of the device of this process, until it dies, and tell what is free then. Below 0: what a context takes. */
static int take(long long wanted, size_t *is_free, size_t *of) {
    const char *path = getenv("FAKE_CUDA_STATE"), *mask = getenv("CUDA_VISIBLE_DEVICES");
    char line[4096], ledger[1024], kept[1 << 16] = "", device[128];
    FILE *file = path ? fopen(path, "re") : NULL;
    long long total = 1LL << 46, context = 0, used = 0, bytes;
    int known = 0, exclusive = 0, held = 0, pid, error = OK, fd = -1;
    while (file && fgets(line, sizeof line, file)) {
        known |= sscanf(line, "memory %1023s %lld %lld", ledger, &total, &context) == 3;
        exclusive |= !strncmp(line, "exclusive", 9);
    }
    if (file) fclose(file);
    if (known) total <<= 20, fd = open(ledger, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (wanted < 0) wanted = context << 20;
    if (fd >= 0 && !flock(fd, LOCK_EX) && (file = fdopen(fd, "r+"))) {
        char *end = kept;
        while (next_held(file, device, &pid, &bytes) && end - kept < (long)sizeof kept - 256) {
            if (mask && !strcmp(mask, device)) used += bytes, held |= pid != getpid();
            end += sprintf(end, "%s %d %lld\n", device, pid, bytes);
        }
        if (exclusive && held) error = UNAVAILABLE;
        else if (wanted > total - used) error = OUT_OF_MEMORY;
        else if (wanted && mask) end += sprintf(end, "%s %d %lld\n", mask, getpid(), wanted), used += wanted;
        if (ftruncate(fd, 0) || pwrite(fd, kept, end - kept, 0) < 0) error = INVALID;
        fclose(file);
    }
    if (is_free) *is_free = (size_t)(total - used);
    if (of) *of = (size_t)total;
    return error;
}

#define ENTER \
    do { \
        int entered = enter(__func__); \
        if (entered != OK) return entered; \
    } while (0)

int cuGetErrorName(int error, const char **name) {
    switch (error) {
    case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return OK;
    case 46: *name = "CUDA_ERROR_DEVICE_UNAVAILABLE"; return OK;
    case 100: *name = "CUDA_ERROR_NO_DEVICE"; return OK;
    case 214: *name = "CUDA_ERROR_ECC_UNCORRECTABLE"; return OK;
    case 999: *name = "CUDA_ERROR_UNKNOWN"; return OK;
    }
    *name = NULL;
    return INVALID;
}

int cuGetErrorString(int error, const char **text) {
    switch (error) {
    case 2: *text = "out of memory"; return OK;
    case 46: *text = "CUDA-capable device(s) is/are busy or unavailable"; return OK;
    case 100: *text = "no CUDA-capable device is detected"; return OK;
    case 214: *text = "uncorrectable ECC error encountered"; return OK;
    case 999: *text = "unknown error"; return OK;
    }
    *text = NULL;
    return INVALID;
}

int cuInit(unsigned flags) {
    const char *shows = getenv("FAKE_CUDA_SHOWS");
    const char *mask = getenv("CUDA_VISIBLE_DEVICES"), *mistaken = getenv("FAKE_CUDA_MISTAKES");
    char list[1024];
    ENTER;
    if (flags) return INVALID;
    count = 0;
    if (!shows) shows = mask ? mask : "";
    if (mask && mistaken && !strcmp(mask, mistaken)) shows = "GPU-ffffffff-ffff-ffff-ffff-ffffffffffff";
    snprintf(list, sizeof list, "%s", shows);
    for (char *item = strtok(list, ","); item; item = strtok(NULL, ",")) add(item);
    return count ? OK : NO_DEVICE;
}

int cuDeviceGetCount(int *found) {
    ENTER;
    *found = count;
    return OK;
}

int cuDeviceGet(int *handle, int index) {
    ENTER;
    *handle = index;
    return index >= 0 && index < count ? OK : INVALID;
}

int cuDeviceGetUuid(uuid *found, int handle) {
    ENTER;
    if (handle < 0 || handle >= count) return INVALID;
    *found = devices[handle];
    return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int handle) {
    ENTER;
    if (handle < 0 || handle >= count) return INVALID;
    *context = &devices[handle];
    return take(-1, NULL, NULL);
}

int cuCtxSetCurrent(void *context) {
    ENTER;
    return context ? OK : INVALID;
}

int cuMemAlloc_v2(void **at, size_t size) {
    ENTER;
    *at = &devices[0];
    return take((long long)size, NULL, NULL);
}

int cuMemGetInfo_v2(size_t *is_free, size_t *total) {
    ENTER;
    return take(0, is_free, total);
}
