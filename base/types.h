/* SPDX-License-Identifier: Apache-2.0
 * The few types and attributes that are used everywhere. */
#ifndef KEDGE_BASE_TYPES_H
#define KEDGE_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t usec_t; /* microseconds; CLOCK_BOOTTIME unless the name says wall */
#define USEC_PER_MS   ((usec_t)1000)
#define USEC_PER_SEC  ((usec_t)1000000)
#define USEC_INFINITY UINT64_MAX

typedef uint32_t node_id_t; /* stable number of a node in its cluster, from 1; 0 is "none" */

#define KEDGE_MUST_CHECK   __attribute__((warn_unused_result))
#define KEDGE_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define KEDGE_UNUSED       __attribute__((unused))

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
