/* Memory that processes hold on the cards of the fakes: lines of `UUID PID BYTES` in a file, which the fake CUDA driver
 * writes and the fake NVML reads. Whoever is dead holds nothing. */
#include <stdio.h>

static int is_alive(int pid) {
    char path[64], state = 'X';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 'X';
    fclose(file);
    return state != 'Z' && state != 'X';
}

/* Read the next line of a process that is alive. */
static int next_held(FILE *file, char uuid[128], int *pid, long long *bytes) {
    while (fscanf(file, "%127s %d %lld", uuid, pid, bytes) == 3)
        if (is_alive(*pid)) return 1;
    return 0;
}
