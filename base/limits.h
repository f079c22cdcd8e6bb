/* SPDX-License-Identifier: Apache-2.0
 * Every fixed limit, by name. What a user or a peer can exceed is refused with an error that names the limit. */
#ifndef KEDGE_BASE_LIMITS_H
#define KEDGE_BASE_LIMITS_H

#define NAME_BYTES_MAX    64   /* names of nodes, VMs, tenants, with the terminating zero */
#define ADDRESS_BYTES_MAX 72   /* "host:port" */
#define PATH_BYTES_MAX    1024 /* kernel and initrd paths */
#define CMDLINE_BYTES_MAX 2048 /* kernel command line */
#define REASON_BYTES_MAX  160  /* reason of a placement, text of an event */
#define DIGEST_BYTES_MAX  65   /* SHA-256 as hexadecimal digits, with its zero */

#define NODES_MAX 64
#define VMS_MAX   1024 /* in the cluster */
#define SLOTS_MAX 128  /* VM instances on one node: slots of the guard's page */

#define EXPORTS_MAX  64   /* volumes served without a VM, on one node */
#define VOLUMES_MAX  2048 /* in the cluster */
#define VM_DISKS_MAX 8
#define REPLICAS_MAX 3

#define IMAGES_MAX         256         /* in the cluster */
#define FILES_MAX          4096        /* contents of images, kernels, initrds in the cluster, times their copies */
#define SEED_BYTES_MAX     (64u << 10) /* user-data and meta-data of one VM */
#define SEED_BYTES_TOTAL   (4u << 20)  /* of all VMs: nodes compare their states once a second */
#define UPLOAD_CHUNK_BYTES (256u << 10)
#define FETCH_CHUNK_BYTES  (128u << 10) /* on the links that carry leases: small, and one at a time */
#define UPLOADS_MAX        16

#define VCPUS_MAX        256
#define MEMORY_BYTES_MIN (32ULL << 20)
#define MEMORY_BYTES_MAX (4ULL << 40)

#define FRAME_BYTES_MAX       (1u << 20) /* a message on a peer link or the control port */
#define ENTRY_BYTES_MAX       (256u << 10)
#define SNAPSHOT_BYTES_MAX    (64u << 20)
#define SNAPSHOT_CHUNK_BYTES  (128u << 10)
#define PEER_QUEUE_BYTES_MAX  (8u << 20) /* waiting to be sent on one peer link */
#define CTL_CLIENTS_MAX       128
#define CTL_QUEUE_BYTES_MAX   (4u << 20)
#define APPLY_IN_FLIGHT_BYTES (8u << 20) /* proposed, not yet applied */

#define SESSIONS_MAX        10000
#define SESSION_ANSWERS_MAX 256
#define SESSION_IDLE_SEC    3600
#define EVENTS_MAX          10000

#define ENGINE_MEMORY_MIN_MIB 33 /* of a volume engine, for requests: one fits */

#define CONF_BYTES_MAX (64u << 10)
#define YAML_BYTES_MAX (1u << 20)

#endif
