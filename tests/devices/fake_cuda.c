/* A libcuda.so.1 that shows the one device that CUDA_VISIBLE_DEVICES names by its UUID, as the real one does.
 *
 *     FAKE_CUDA_SHOWS GPU-…,GPU-…    whatever the mask says, show these; empty: none
 *     FAKE_CUDA_MISTAKES GPU-…       show another device where the mask says this one
 *     FAKE_CUDA_ERROR 999            what cuInit returns
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_DEVICE = 100, DEVICES = 16 };

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

int cuInit(unsigned flags) {
    const char *error = getenv("FAKE_CUDA_ERROR"), *shows = getenv("FAKE_CUDA_SHOWS");
    const char *mask = getenv("CUDA_VISIBLE_DEVICES"), *mistaken = getenv("FAKE_CUDA_MISTAKES");
    char list[1024];
    if (error) return atoi(error);
    if (flags) return INVALID;
    count = 0;
    if (!shows) shows = mask ? mask : "";
    if (mask && mistaken && !strcmp(mask, mistaken)) shows = "GPU-ffffffff-ffff-ffff-ffff-ffffffffffff";
    snprintf(list, sizeof list, "%s", shows);
    for (char *item = strtok(list, ","); item; item = strtok(NULL, ",")) add(item);
    return count ? OK : NO_DEVICE;
}

int cuDeviceGetCount(int *found) {
    *found = count;
    return OK;
}

int cuDeviceGet(int *handle, int index) {
    *handle = index;
    return index >= 0 && index < count ? OK : INVALID;
}

int cuDeviceGetUuid(uuid *found, int handle) {
    if (handle < 0 || handle >= count) return INVALID;
    *found = devices[handle];
    return OK;
}
