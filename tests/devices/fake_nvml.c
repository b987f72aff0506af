/* A libnvidia-ml.so.1 that says what a text file tells it to.
 *
 * The file is named by FAKE_NVML_STATE and read again at every call, so a test changes the machine while it is looked
 * at. It has one `key value` a line; a device is `G` (the GPU of index G) or `G/M` (the MIG instance of index M on it):
 *
 *     count 2                        GPUs
 *     cuda_version 13000             the newest CUDA that the driver runs
 *     driver 580.95.05               its version
 *     0 uuid GPU-…                   likewise name, bus, memory_total, memory_free, utilisation, temperature, power,
 *                                    power_limit, fan, compute_mode, persistence, capability (8.9), accounting, mig, mig_max, instance,
 *                                    ecc, events (mask of types),
 *                                    cpus (hexadecimal words, the lowest cores first)
 *     0 processes 123:1000 456:-     PID and memory; - is "not available"
 *     0 held F                       processes and their memory besides: fake_memory.h
 *     0 accounted 123:1000:250:40    of a PID that has ended: most memory, milliseconds, utilisation; any: `*`
 *     0 nvmlDeviceGetName.error 3    what a function returns for a device,
 *     nvmlInitWithFlags.error 9      or for any
 *     0 nvmlDeviceGetName.block F    wait until the writing end of the FIFO F has been opened and closed
 *     event 1 0 8 79 -1              the first event: GPU 0, type 8, data 79, GPU instance (-1: the whole GPU)
 *     calls F                        append the name of each function called to the file F
 *
 * A value that is not given is NVML_ERROR_NOT_SUPPORTED.
 */
#include "fake_memory.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMED_OUT = 10 };
enum { GPUS = 16, INSTANCES = 7 };

typedef struct { int gpu, instance; } device;
typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } utilisation_info;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process_info;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct {
    unsigned utilisation, memory_utilisation;
    unsigned long long most_memory, milliseconds, began;
    unsigned running, reserved[5];
} accounting_stats;
typedef struct { int seen; } event_set;
typedef struct { device *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } event_data;

static device devices[GPUS][INSTANCES + 1];
static int started;

/* Copies the rest of the first line that begins with `key` and a space; 0 if there is none. */
static int line_of(const char *key, char *value, size_t size) {
    char line[4096];
    size_t length = strlen(key);
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "re") : NULL;
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static int value_of(const device *d, const char *what, char *value, size_t size) {
    char key[160];
    if (!d) return line_of(what, value, size);
    if (d->instance < 0) snprintf(key, sizeof key, "%d %s", d->gpu, what);
    else snprintf(key, sizeof key, "%d/%d %s", d->gpu, d->instance, what);
    return line_of(key, value, size);
}

static int number_of(const device *d, const char *what, unsigned long long *number) {
    char value[128];
    if (!value_of(d, what, value, sizeof value)) return UNSUPPORTED;
    *number = strtoull(value, NULL, 10);
    return OK;
}

static int unsigned_of(const device *d, const char *what, unsigned *number) {
    unsigned long long wide;
    int ret = number_of(d, what, &wide);
    if (ret == OK) *number = (unsigned)wide;
    return ret;
}

/* What every function does first: tell that it was called, block, and fail, if it is told to. */
static int enter(const device *d, const char *function) {
    char key[160], value[1024], byte;
    if (line_of("calls", value, sizeof value)) {
        int fd = open(value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0) {
            dprintf(fd, "%s\n", function);
            close(fd);
        }
    }
    snprintf(key, sizeof key, "%s.block", function);
    if (value_of(d, key, value, sizeof value)) {
        int fd = open(value, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            while (read(fd, &byte, 1) > 0) {}
            close(fd);
        }
    }
    snprintf(key, sizeof key, "%s.error", function);
    if (value_of(d, key, value, sizeof value) || value_of(NULL, key, value, sizeof value)) return atoi(value);
    if (!started && strcmp(function, "nvmlInitWithFlags")) return UNINITIALIZED;
    return OK;
}

#define ENTER(d) \
    do { \
        int entered = enter(d, __func__); \
        if (entered != OK) return entered; \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ENTER(NULL);
    for (int g = 0; g < GPUS; g++)
        for (int i = 0; i <= INSTANCES; i++) devices[g][i] = (device){g, i - 1};
    started++;
    return OK;
}

int nvmlShutdown(void) {
    ENTER(NULL);
    started--;
    return OK;
}

const char *nvmlErrorString(int result) {
    (void)result;
    return "a made-up error";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(NULL);
    *count = 0;
    unsigned_of(NULL, "count", count);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **found) {
    if (index >= GPUS) return INVALID;
    ENTER(&devices[index][0]);
    *found = &devices[index][0];
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, device **found) {
    char value[128];
    for (int g = 0; g < GPUS; g++)
        for (int i = 0; i <= INSTANCES; i++)
            if (value_of(&devices[g][i], "uuid", value, sizeof value) && !strcmp(value, uuid)) {
                ENTER(&devices[g][i]);
                *found = &devices[g][i];
                return OK;
            }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(device *d, char *uuid, unsigned size) {
    ENTER(d);
    return value_of(d, "uuid", uuid, size) ? OK : UNSUPPORTED;
}

int nvmlDeviceGetName(device *d, char *name, unsigned size) {
    ENTER(d);
    return value_of(d, "name", name, size) ? OK : UNSUPPORTED;
}

int nvmlDeviceGetPciInfo_v3(device *d, pci_info *pci) {
    ENTER(d);
    memset(pci, 0, sizeof *pci);
    return unsigned_of(d, "bus", &pci->bus);
}

/* The bytes that processes hold on a device; the first `room` of them go to `processes`, after the *n that are there. */
static unsigned long long held(const device *d, unsigned room, unsigned *n, process_info *processes) {
    char path[1024], uuid[128], other[128];
    unsigned long long sum = 0;
    long long bytes;
    int pid;
    if (!value_of(d, "held", path, sizeof path) || !value_of(d, "uuid", uuid, sizeof uuid)) return 0;
    FILE *file = fopen(path, "re");
    if (file && !flock(fileno(file), LOCK_SH))
        while (next_held(file, other, &pid, &bytes)) {
            if (strcmp(uuid, other)) continue;
            sum += (unsigned long long)bytes;
            if (!n) continue;
            if (*n < room && processes) processes[*n] = (process_info){(unsigned)pid, (unsigned long long)bytes, -1U, -1U};
            (*n)++;
        }
    if (file) fclose(file);
    return sum;
}

int nvmlDeviceGetMemoryInfo(device *d, memory_info *memory) {
    ENTER(d);
    if (number_of(d, "memory_total", &memory->total) != OK) return UNSUPPORTED;
    memory->free = memory->total;
    number_of(d, "memory_free", &memory->free);
    memory->free -= held(d, 0, NULL, NULL);
    memory->used = memory->total - memory->free;
    return OK;
}

int nvmlDeviceGetUtilizationRates(device *d, utilisation_info *rates) {
    ENTER(d);
    rates->memory = 0;
    return unsigned_of(d, "utilisation", &rates->gpu);
}

int nvmlDeviceGetTemperature(device *d, unsigned sensor, unsigned *degrees) {
    (void)sensor;
    ENTER(d);
    return unsigned_of(d, "temperature", degrees);
}

int nvmlDeviceGetPowerUsage(device *d, unsigned *milliwatts) {
    ENTER(d);
    return unsigned_of(d, "power", milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *milliwatts) {
    ENTER(d);
    return unsigned_of(d, "power_limit", milliwatts);
}

int nvmlDeviceGetFanSpeed(device *d, unsigned *percent) {
    ENTER(d);
    return unsigned_of(d, "fan", percent);
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    ENTER(NULL);
    return line_of("driver", version, size) ? OK : UNSUPPORTED;
}

int nvmlDeviceGetComputeMode(device *d, unsigned *mode) {
    ENTER(d);
    return unsigned_of(d, "compute_mode", mode);
}

int nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    char value[32];
    ENTER(d);
    if (!value_of(d, "capability", value, sizeof value)) return UNSUPPORTED;
    return sscanf(value, "%d.%d", major, minor) == 2 ? OK : UNSUPPORTED;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    unsigned number;
    ENTER(NULL);
    if (unsigned_of(NULL, "cuda_version", &number) != OK) return UNSUPPORTED;
    *version = (int)number;
    return OK;
}

int nvmlDeviceGetPersistenceMode(device *d, unsigned *mode) {
    ENTER(d);
    return unsigned_of(d, "persistence", mode);
}

int nvmlDeviceGetCpuAffinity(device *d, unsigned words, unsigned long *set) {
    char value[1024], *at = value;
    ENTER(d);
    if (!value_of(d, "cpus", value, sizeof value)) return UNSUPPORTED;
    for (unsigned i = 0; i < words; i++) set[i] = strtoul(at, &at, 16);
    return OK;
}

int nvmlDeviceGetTotalEccErrors(device *d, unsigned type, unsigned counter, unsigned long long *count) {
    (void)type;
    (void)counter;
    ENTER(d);
    return number_of(d, "ecc", count);
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process_info *processes) {
    char value[4096], *rest = value, *word;
    unsigned n = 0, room = *count;
    ENTER(d);
    if (!value_of(d, "processes", value, sizeof value)) return UNSUPPORTED;
    while ((word = strsep(&rest, " ")))
        if (*word) {
            char *used = strchr(word, ':') + 1;
            if (n < room && processes)
                processes[n] = (process_info){strtoul(word, NULL, 10), *used == '-' ? -1ULL : strtoull(used, NULL, 10),
                                              -1U, -1U};
            n++;
        }
    held(d, room, &n, processes);
    *count = n;
    return n > room ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(device *d, unsigned *count, process_info *processes) {
    ENTER(d);
    (void)count;
    (void)processes;
    return UNSUPPORTED;
}

/* accounting */

int nvmlDeviceGetAccountingMode(device *d, unsigned *mode) {
    ENTER(d);
    return unsigned_of(d, "accounting", mode);
}

int nvmlDeviceGetAccountingStats(device *d, unsigned pid, accounting_stats *stats) {
    char value[4096], *rest = value, *word;
    ENTER(d);
    memset(stats, 0, sizeof *stats);
    if (!value_of(d, "accounted", value, sizeof value)) return UNSUPPORTED;
    while ((word = strsep(&rest, " "))) {
        char *numbers = strchr(word, ':');
        if (!numbers || (*word != '*' && strtoul(word, NULL, 10) != pid)) continue;
        if (sscanf(numbers, ":%llu:%llu:%u", &stats->most_memory, &stats->milliseconds, &stats->utilisation) != 3)
            return INVALID;
        stats->running = !stats->milliseconds;
        return OK;
    }
    return NOT_FOUND;
}

/* MIG */

int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending) {
    ENTER(d);
    int ret = unsigned_of(d, "mig", current);
    *pending = *current;
    return ret;
}

int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *count) {
    ENTER(d);
    return unsigned_of(d, "mig_max", count);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned index, device **found) {
    char value[128];
    ENTER(d);
    if (index >= INSTANCES || !value_of(&devices[d->gpu][index + 1], "uuid", value, sizeof value)) return NOT_FOUND;
    *found = &devices[d->gpu][index + 1];
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device *d, device **parent) {
    ENTER(d);
    if (d->instance < 0) return INVALID;
    *parent = &devices[d->gpu][0];
    return OK;
}

int nvmlDeviceGetGpuInstanceId(device *d, unsigned *id) {
    ENTER(d);
    return unsigned_of(d, "instance", id);
}

/* events */

int nvmlDeviceGetSupportedEventTypes(device *d, unsigned long long *types) {
    ENTER(d);
    return number_of(d, "events", types);
}

int nvmlEventSetCreate(event_set **set) {
    ENTER(NULL);
    *set = calloc(1, sizeof **set);
    return OK;
}

int nvmlDeviceRegisterEvents(device *d, unsigned long long types, event_set *set) {
    (void)types;
    (void)set;
    ENTER(d);
    return OK;
}

int nvmlEventSetWait_v2(event_set *set, event_data *data, unsigned timeout_ms) {
    char key[32], value[128];
    ENTER(NULL);
    for (unsigned waited = 0;; waited++) {
        snprintf(key, sizeof key, "event %d", set->seen + 1);
        if (line_of(key, value, sizeof value)) {
            int gpu, instance;
            if (sscanf(value, "%d %llu %llu %d", &gpu, &data->type, &data->data, &instance) != 4) return INVALID;
            data->device = &devices[gpu][0];
            data->gpu_instance = data->compute_instance = (unsigned)instance;
            set->seen++;
            return OK;
        }
        if (waited >= timeout_ms) return TIMED_OUT;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

int nvmlEventSetFree(event_set *set) {
    ENTER(NULL);
    free(set);
    return OK;
}
