/* SPDX-License-Identifier: Apache-2.0
 * Virtual machines through libvirt, as a module that kedged loads when the node runs VMs.
 *
 * Every call returns at once; the work is done by one lane (thread, queue) per VM, and its result comes as an event.
 * A lane is never asked about a frozen guest: libvirt hangs on it. The process, not libvirt, says whether a guest
 * lives: kedged watches pidfds and tells the module by forget() when one is gone.
 */
#ifndef KEDGE_HYPERVISOR_HYPERVISOR_H
#define KEDGE_HYPERVISOR_HYPERVISOR_H

#include "base/base.h"

#define HYPERVISOR_MODULE  "kedge-hypervisor.so"
#define HYPERVISOR_SYMBOL  "kedge_hypervisor"
#define HYPERVISOR_VERSION 4
#define HYPERVISOR_MACHINE "pc-q35-7.2" /* the newest that QEMU of Debian 12 and 13 both have */

struct hypervisor;

struct hypervisor_config {
	char uri[PATH_BYTES_MAX];         /* qemu:///embed?root=DIR/libvirt, qemu:///system, test:///default */
	char root[PATH_BYTES_MAX];        /* DIR/libvirt; made and furnished with etc/qemu.conf for embed */
	char console_dir[PATH_BYTES_MAX]; /* DIR/console */
	char accel[8];                    /* auto | kvm | tcg */
	char nbd_socket[PATH_BYTES_MAX];  /* of the volume engine */
	uint32_t reconnect;               /* seconds that QEMU waits for it before it pauses the guest */
};

/* A disk over NBD: the export @volume at the engine's socket. */
struct hypervisor_disk {
	char volume[NAME_BYTES_MAX];
	char serial[21]; /* what the guest sees: its name within the VM, cut to what virtio carries */
	uint64_t size;   /* bytes that the engine serves now; comes back in events */
};

/* What a guest sees; the same after every failover. */
struct hypervisor_vm {
	char name[NAME_BYTES_MAX];
	char uuid[40];
	char machine[32];
	uint32_t vcpus;
	uint64_t memory_bytes;
	char kernel[PATH_BYTES_MAX]; /* absolute */
	char initrd[PATH_BYTES_MAX]; /* absolute, or "" */
	char cmdline[CMDLINE_BYTES_MAX];
	size_t n_disks; /* in their order: vda, vdb, ... Without a kernel it boots from the first */
	struct hypervisor_disk disks[VM_DISKS_MAX];
	char seed[PATH_BYTES_MAX]; /* a file with a disk for cloud-init, the last one, read-only; or "" */
};

enum hypervisor_event_kind {
	HYPERVISOR_READY,        /* capabilities are known: accel; code negative: no guest can run, text says why */
	HYPERVISOR_STARTED,      /* created, paused: pid is the QEMU process */
	HYPERVISOR_START_FAILED, /* nothing runs; text says why */
	HYPERVISOR_RESUMED,      /* `cont` was given; code 0 or negative */
	HYPERVISOR_SHUTDOWN,     /* the power button was pressed; code 0 or negative */
	HYPERVISOR_PAUSED,    /* QEMU paused it, since a disk failed: resume() tries again. Also when it is created */
	HYPERVISOR_RESIZED,   /* it knows the sizes of its disks; code 0 or negative: not all of them yet */
	HYPERVISOR_FORGOTTEN, /* libvirt knows nothing of it any more; the name is free */
};

struct hypervisor_event {
	enum hypervisor_event_kind kind;
	char vm[NAME_BYTES_MAX];
	uint64_t gen;
	int code;
	int32_t pid;
	char accel[8];
	char version[64]; /* READY: "QEMU 10.0.2, libvirt 11.3.0" */
	char text[256];
	uint64_t sizes[VM_DISKS_MAX]; /* STARTED, RESIZED: of its disks, as they were told with the request */
};

/* A QEMU that libvirt lists at opening; its pid may be gone already. */
struct hypervisor_found {
	char vm[NAME_BYTES_MAX];
	char uuid[40];
	int32_t pid;
};

struct hypervisor_ops {
	int version;
	/* [loop] Connect (blocking, up to some seconds at the first time) and start the threads. @notify(ctx) is called
	 * from any thread when an event waits; it must only wake the loop. READY follows when the probes are done. */
	int (*open)(const struct hypervisor_config *config, void (*notify)(void *ctx), void *ctx,
		    struct hypervisor **ret, struct err *e);
	/* [loop] Take the next event. Returns false when there is none. */
	bool (*poll)(struct hypervisor *h, struct hypervisor_event *ret);
	/* [loop] What runs already, at most @max. Returns the number. Call once, right after open(). */
	size_t (*found)(struct hypervisor *h, struct hypervisor_found *ret, size_t max);
	/* [loop] Create @vm paused -> STARTED or START_FAILED. @gen comes back in the event and is opaque. */
	void (*start)(struct hypervisor *h, const struct hypervisor_vm *vm, uint64_t gen);
	/* [loop] Let it run -> RESUMED. Harmless when it runs already. */
	void (*resume)(struct hypervisor *h, const char *vm, uint64_t gen);
	/* [loop] Press its power button -> SHUTDOWN. The guest may take its time or ignore it. */
	void (*shutdown)(struct hypervisor *h, const char *vm, uint64_t gen);
	/* [loop] Tell its QEMU, which has connected to the engine since they have them, what sizes its disks have by
	 * now
	 * -> RESIZED. Of @vm only the name and the disks count. Harmless when it knows. */
	void (*resize)(struct hypervisor *h, const struct hypervisor_vm *vm, uint64_t gen);
	/* [loop] Its process is gone: clean up -> FORGOTTEN. Nobody needs to wait for it, but a new start of the same
	 * name queues behind it. */
	void (*forget)(struct hypervisor *h, const char *vm, uint64_t gen);
	/* [loop] Stop the threads without touching the guests. Lanes inside libvirt get a few seconds, then are left.
	 */
	void (*close)(struct hypervisor *h);
};

/* The module exports: const struct hypervisor_ops kedge_hypervisor; */

#endif
