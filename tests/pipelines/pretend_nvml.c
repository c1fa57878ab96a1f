/* NVIDIA's management library for a machine without its GPUs: two of them, and what torch and dask-cuda ask about each.
   With PRETEND_NO_AFFINITY set it does not know which cores are near a GPU, as in many containers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS 2
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;

/* A handle is the GPU's number + 1. */
static unsigned int number(void *gpu) { return (unsigned int)(size_t)gpu - 1; }
static void *handle(unsigned int index) { return (void *)(size_t)(index + 1); }
static void name(unsigned int index, char *text, unsigned int size)
{
    snprintf(text, size, "GPU-%08x-0000-0000-0000-000000000000", index + 10);
}

int nvmlInit(void) { return SUCCESS; }
int nvmlInitWithFlags(unsigned int flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return error == NOT_FOUND ? "Not Found" : "Not Supported"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int size) { return snprintf(text, size, "600.0") < 0; }

int nvmlDeviceGetCount_v2(unsigned int *count) { *count = GPUS; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu)
{
    *gpu = handle(index);
    return index < GPUS ? SUCCESS : INVALID_ARGUMENT;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu)
{
    char known[96];
    for (unsigned int index = 0; index < GPUS; index++) {
        name(index, known, sizeof known);
        *gpu = handle(index);
        if (!strcmp(known, uuid)) return SUCCESS;
    }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned int size) { name(number(gpu), text, size); return SUCCESS; }
int nvmlDeviceGetIndex(void *gpu, unsigned int *index) { *index = number(gpu); return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *text, unsigned int size) { return snprintf(text, size, "none") < 0; }

int nvmlDeviceGetMemoryInfo(void *gpu, Memory *memory)
{
    memory->total = memory->free = 16ULL << 30;
    memory->used = 0;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *gpu, Utilization *share) { share->gpu = share->memory = 0; return SUCCESS; }
int nvmlDeviceGetCpuAffinity(void *gpu, unsigned int words, unsigned long long *cores)
{
    memset(cores, 0xff, words * sizeof *cores);
    return getenv("PRETEND_NO_AFFINITY") ? NOT_SUPPORTED : SUCCESS;
}
int nvmlDeviceIsMigDeviceHandle(void *gpu, unsigned int *is) { *is = 0; return SUCCESS; }
int nvmlDeviceGetMigMode(void *gpu, unsigned int *now, unsigned int *next) { return NOT_SUPPORTED; }
int nvmlDeviceGetComputeRunningProcesses_v2(void *gpu, unsigned int *count, void *found) { *count = 0; return SUCCESS; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned int *count, void *found) { *count = 0; return SUCCESS; }
