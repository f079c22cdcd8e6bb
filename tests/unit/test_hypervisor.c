/* SPDX-License-Identifier: Apache-2.0
 * The hypervisor module: what it writes, its lanes on libvirt's test driver, and one real guest's life. */
#include "hypervisor/domain_xml.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/probe.h"
#include "tests/unit/guest_help.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libvirt/libvirt.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define UUID   "5dd0d3a8-7b5f-4a3c-9c55-1f2f6a1e0001"
#define WAIT   (60 * USEC_PER_SEC)
#define GUESTS 20

extern const struct hypervisor_ops kedge_hypervisor;

static const struct hypervisor_ops *const ops = &kedge_hypervisor;
static char dir[32];     /* short: QEMU's monitor is a unix socket below it */
static int wake = -1;    /* an eventfd */
static int32_t qemu_pid; /* of the last guest */
static usec_t mark;
static char program[] = "/proc/self/exe", first[] = "first-life";

/* ThreadSanitizer sees only half of what libraries do that were not built for it. */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:libvirt\nrace:libglib\nrace:libgobject\nrace:libgio\nmutex:libvirt\ndeadlock:libvirt\n";
}

/* ---- help ---- */

static void timing_note(const char *what)
{
	usec_t now = clock_boottime();

	print_message("    %-34s %5llu ms\n", what, (unsigned long long)((now - mark) / USEC_PER_MS));
	mark = now;
}

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 20 * 1000 * 1000};

	(void)nanosleep(&t, NULL);
}

static void notify(void *ctx)
{
	uint64_t one = 1;

	assert_int_equal(write(*(int *)ctx, &one, sizeof one), sizeof one);
}

/* The next event; each must have been notified. That a guest is paused when it is created is no news here. */
static struct hypervisor_event next(struct hypervisor *h)
{
	struct hypervisor_event ev = {0};
	struct pollfd fd = {.fd = wake, .events = POLLIN};
	uint64_t count;

	for (;;) {
		while (ops->poll(h, &ev))
			if (ev.kind != HYPERVISOR_PAUSED)
				return ev;
		assert_int_equal(poll(&fd, 1, (int)(WAIT / USEC_PER_MS)), 1);
		assert_int_equal(read(wake, &count, sizeof count), sizeof count);
	}
}

static struct hypervisor_event expect(struct hypervisor *h, enum hypervisor_event_kind kind, const char *vm,
				      uint64_t gen)
{
	struct hypervisor_event ev = next(h);

	if (ev.kind != kind)
		print_message("    %s: event %d, code %d: %s\n", ev.vm, (int)ev.kind, ev.code, ev.text);
	assert_int_equal(ev.kind, kind);
	assert_string_equal(ev.vm, vm);
	assert_int_equal(ev.gen, gen);
	return ev;
}

static struct hypervisor_config config_for(const char *uri)
{
	struct hypervisor_config c = {.accel = "tcg"};

	(void)snprintf(c.uri, sizeof c.uri, "%s", uri);
	(void)snprintf(c.root, sizeof c.root, "%s/libvirt", dir);
	(void)snprintf(c.console_dir, sizeof c.console_dir, "%s/console", dir);
	return c;
}

static struct hypervisor *open_at(const char *uri)
{
	struct hypervisor_config c = config_for(uri);
	struct hypervisor *h = NULL;
	struct err e = {0};

	if (ops->open(&c, notify, &wake, &h, &e) < 0)
		fail_msg("%s", e.text);
	return h;
}

static struct hypervisor_vm vm_named(const char *name)
{
	struct hypervisor_vm vm = {
		.uuid = UUID, .machine = HYPERVISOR_MACHINE, .vcpus = 2, .memory_bytes = 128ULL << 20};

	(void)snprintf(vm.name, sizeof vm.name, "%s", name);
	return vm;
}

static int remove_one(const char *path, const struct stat *st KEDGE_UNUSED, int type KEDGE_UNUSED,
		      struct FTW *at KEDGE_UNUSED)
{
	return remove(path);
}

static int setup(void **state KEDGE_UNUSED)
{
	(void)snprintf(dir, sizeof dir, "/tmp/kh-XXXXXX");
	wake = eventfd(0, EFD_CLOEXEC);
	return mkdtemp(dir) && guests_end_with_me(dir) && wake >= 0 ? 0 : -1;
}

static int teardown(void **state KEDGE_UNUSED)
{
	(void)guests_end_below(dir);
	(void)close(wake);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the definition ---- */

static const char golden[] =
	"<?xml version=\"1.0\"?>\n"
	"<domain type=\"qemu\"><name>web</name><uuid>" UUID "</uuid><title>kedge /d</title>"
	"<memory unit=\"bytes\">134217728</memory><vcpu>2</vcpu>"
	"<os><type arch=\"x86_64\" machine=\"pc-q35-7.2\">hvm</type><kernel>/b/k</kernel><initrd>/b/i</initrd>"
	"<cmdline>a=&lt;&amp;\"'&gt; ]]&gt;</cmdline></os>"
	"<features><acpi/><apic/></features><clock offset=\"utc\"/>"
	"<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>"
	"<devices><controller type=\"usb\" model=\"none\"/>"
	"<serial type=\"file\"><source path=\"/c/&lt;&amp;&quot;.log\" append=\"on\"/><target port=\"0\"/></serial>"
	"<memballoon model=\"none\"/><video><model type=\"none\"/></video></devices></domain>\n";

static void test_definition(void **state KEDGE_UNUSED)
{
	struct domain_place place = {.type = "qemu", .title = "kedge /d", .console = "/c/<&\".log"};
	struct hypervisor_vm vm = vm_named("web");
	char *xml;

	(void)snprintf(vm.kernel, sizeof vm.kernel, "/b/k");
	(void)snprintf(vm.initrd, sizeof vm.initrd, "/b/i");
	(void)snprintf(vm.cmdline, sizeof vm.cmdline, "a=<&\"'> ]]>");
	xml = domain_xml(&vm, &place);
	assert_non_null(xml);
	assert_string_equal(xml, golden);
	free(xml);

	vm.initrd[0] = vm.cmdline[0] = '\0';
	place.type = "kvm";
	xml = domain_xml(&vm, &place);
	assert_non_null(strstr(xml, "<domain type=\"kvm\">"));
	assert_non_null(strstr(xml, "<cpu mode=\"host-passthrough\" migratable=\"on\"/>"));
	assert_true(!strstr(xml, "initrd") && !strstr(xml, "cmdline"));
	free(xml);
}

/* The longest that the limits allow arrives whole. */
static void test_long_definition(void **state KEDGE_UNUSED)
{
	struct domain_place place = {.type = "qemu"};
	struct hypervisor_vm vm = vm_named("web");
	char *xml;

	memset(vm.cmdline, 'c', sizeof vm.cmdline - 1);
	memset(vm.kernel, 'k', sizeof vm.kernel - 1);
	xml = domain_xml(&vm, &place);
	assert_non_null(xml);
	assert_int_equal(strspn(strstr(xml, "<cmdline>") + 9, "c"), CMDLINE_BYTES_MAX - 1);
	assert_int_equal(strspn(strstr(xml, "<kernel>") + 8, "k"), PATH_BYTES_MAX - 1);
	free(xml);
}

/* ---- the lanes, on libvirt's test driver ---- */

static void test_life(void **state KEDGE_UNUSED)
{
	struct hypervisor *h = open_at("test:///default");
	struct hypervisor_event ev = expect(h, HYPERVISOR_READY, "", 0);
	struct hypervisor_vm vm = vm_named("web");
	struct hypervisor_found found[4];

	assert_string_equal(ev.accel, "tcg");
	assert_non_null(strstr(ev.version, "libvirt "));
	assert_int_equal(ops->found(h, found, 4), 0); /* the driver's own domain is not ours */

	ops->start(h, &vm, 7);
	(void)expect(h, HYPERVISOR_STARTED, "web", 7);
	assert_int_equal(ops->found(h, found, 4), 1);
	assert_string_equal(found[0].vm, "web");
	assert_string_equal(found[0].uuid, UUID);
	for (int i = 0; i < 2; i++) { /* the second time it runs already */
		ops->resume(h, "web", 7);
		assert_int_equal(expect(h, HYPERVISOR_RESUMED, "web", 7).code, 0);
	}
	for (int i = 0; i < 2; i++) { /* the second time nothing is there */
		ops->forget(h, "web", 7);
		assert_int_equal(expect(h, HYPERVISOR_FORGOTTEN, "web", 7).code, 0);
	}
	ops->resume(h, "web", 7);
	ev = expect(h, HYPERVISOR_RESUMED, "web", 7);
	assert_true(ev.code < 0 && ev.text[0]);
	ops->start(h, &vm, 8);
	(void)expect(h, HYPERVISOR_STARTED, "web", 8);
	ops->start(h, &vm, 9); /* the old one is still listed */
	(void)expect(h, HYPERVISOR_STARTED, "web", 9);
	ops->shutdown(h, "web", 9);
	assert_int_equal(expect(h, HYPERVISOR_SHUTDOWN, "web", 9).code, 0);
	ops->forget(h, "web", 9);
	(void)expect(h, HYPERVISOR_FORGOTTEN, "web", 9);
	ops->close(h);
}

static void test_failures(void **state KEDGE_UNUSED)
{
	struct hypervisor_config nowhere = config_for("nothing:///here");
	struct hypervisor_vm vm = vm_named("bad");
	struct hypervisor_event ev;
	struct hypervisor_found found[4];
	struct hypervisor *h = NULL;
	struct err e = {0};

	assert_true(ops->open(&nowhere, notify, &wake, &h, &e) < 0 && !h);
	assert_non_null(strstr(e.text, "nothing:///here"));
	h = open_at("test:///default");
	(void)expect(h, HYPERVISOR_READY, "", 0);
	(void)snprintf(vm.uuid, sizeof vm.uuid, "no uuid");
	ops->start(h, &vm, 1);
	ev = expect(h, HYPERVISOR_START_FAILED, "bad", 1);
	assert_true(strstr(ev.text, "uuid") && !strchr(ev.text, '\n'));
	vm = vm_named("bad");
	(void)snprintf(vm.cmdline, sizeof vm.cmdline, "a\xff");
	ops->start(h, &vm, 2);
	assert_non_null(strstr(expect(h, HYPERVISOR_START_FAILED, "bad", 2).text, "UTF-8"));
	(void)snprintf(vm.cmdline, sizeof vm.cmdline, "a\x01");
	ops->start(h, &vm, 2);
	assert_non_null(strstr(expect(h, HYPERVISOR_START_FAILED, "bad", 2).text, "control"));
	assert_int_equal(ops->found(h, found, 4), 0);

	vm = vm_named("test"); /* the driver's own domain: not ours, so it is left alone */
	for (uint64_t gen = 3; gen < 5; gen++) {
		ops->start(h, &vm, gen);
		ev = expect(h, HYPERVISOR_START_FAILED, "test", gen);
		assert_non_null(strstr(ev.text, "not of this node"));
		ops->forget(h, "test", gen);
		assert_int_equal(expect(h, HYPERVISOR_FORGOTTEN, "test", gen).code, -EEXIST);
	}
	ops->close(h);
}

/* Many lanes at once; on each the order is kept. */
static void test_lanes(void **state KEDGE_UNUSED)
{
	static const enum hypervisor_event_kind order[] = {HYPERVISOR_STARTED, HYPERVISOR_RESUMED, HYPERVISOR_FORGOTTEN,
							   HYPERVISOR_STARTED, HYPERVISOR_FORGOTTEN};
	struct hypervisor *h = open_at("test:///default");
	size_t seen[GUESTS] = {0};
	char name[16];

	(void)expect(h, HYPERVISOR_READY, "", 0);
	for (unsigned i = 0; i < GUESTS; i++) {
		struct hypervisor_vm vm;

		(void)snprintf(name, sizeof name, "vm%u", i);
		vm = vm_named(name);
		(void)snprintf(vm.uuid, sizeof vm.uuid, "5dd0d3a8-7b5f-4a3c-9c55-1f2f6a1e1%03u", i);
		ops->start(h, &vm, i);
		ops->resume(h, name, i);
		ops->forget(h, name, i);
		ops->start(h, &vm, i);
		ops->forget(h, name, i);
	}
	for (size_t n = 0; n < GUESTS * ARRAY_LEN(order); n++) {
		struct hypervisor_event ev = next(h);

		assert_true(ev.gen < GUESTS && seen[ev.gen] < ARRAY_LEN(order));
		assert_int_equal(ev.kind, order[seen[ev.gen]++]);
		assert_int_equal(ev.code, 0);
	}
	for (unsigned i = 0; i < GUESTS; i++) { /* closed with work in the queues */
		(void)snprintf(name, sizeof name, "vm%u", i);
		ops->forget(h, name, i);
	}
	ops->close(h);
}

/* ---- real guests ---- */

static void need_guest(bool as_root)
{
	if (access(GUEST_FOLDER "/vmlinuz", R_OK) == 0 && access(GUEST_FOLDER "/initrd.img", R_OK) == 0 &&
	    access("/usr/bin/qemu-system-x86_64", X_OK) == 0 && (geteuid() == 0 || !as_root))
		return;
	print_message("    needs deploy/guest/build.sh, qemu-system-x86_64%s\n", as_root ? " and root" : "");
	skip();
}

/* A kernel that runs shows it; everything else is a reason. (By TCG: the accelerator is only a word to it.) */
static void test_probe(void **state KEDGE_UNUSED)
{
	_Atomic bool cancel = false;
	struct probe p = {.accel = "tcg", .machine = HYPERVISOR_MACHINE, .cancel = &cancel};
	char why[200] = "";

	need_guest(false);
	mark = clock_boottime();
	p.kernel = GUEST_FOLDER "/vmlinuz";
	p.patience = WAIT;
	assert_true(probe_boot(&p, why, sizeof why));
	timing_note("probe: a kernel up to its panic");
	p.patience = 100 * USEC_PER_MS;
	assert_false(probe_boot(&p, why, sizeof why));
	assert_non_null(strstr(why, "in time"));
	timing_note("probe: out of time after 100 ms");
	p.patience = WAIT;
	cancel = true;
	assert_false(probe_boot(&p, why, sizeof why));
	cancel = false;
	p.accel = "steam";
	assert_false(probe_boot(&p, why, sizeof why));
	assert_true(strstr(why, "ended early") && strstr(why, "steam"));
	p.accel = "tcg";
	p.kernel = "/nowhere/vmlinuz";
	assert_false(probe_boot(&p, why, sizeof why));
	assert_non_null(strstr(why, "/nowhere/vmlinuz"));
}

static bool is_alive(int32_t pid)
{
	struct buf text = {0};
	char path[64];
	const char *at = NULL;
	bool alive;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (file_read(path, 4096, &text, NULL) == 0) {
		buf_append(&text, "", 1);
		at = strrchr((char *)text.data, ')');
	}
	alive = at && at[2] != 'Z';
	buf_free(&text);
	return alive;
}

static void wait_dead(int32_t pid)
{
	usec_t end = clock_boottime() + WAIT;

	while (is_alive(pid) && clock_boottime() < end)
		nap();
	assert_false(is_alive(pid));
}

static off_t console_size(void)
{
	char path[128];
	struct stat st;

	(void)snprintf(path, sizeof path, "%s/console/web.log", dir);
	return stat(path, &st) == 0 ? st.st_size : 0;
}

static void wait_console(off_t above)
{
	usec_t end = clock_boottime() + WAIT;

	while (console_size() <= above && clock_boottime() < end)
		nap();
	assert_true(console_size() > above);
}

static int state_of(const char *uri, const char *vm)
{
	virConnectPtr conn = virConnectOpen(uri);
	virDomainPtr dom = conn ? virDomainLookupByName(conn, vm) : NULL;
	int state = -1;

	if (dom) {
		(void)virDomainGetState(dom, &state, NULL, 0);
		(void)virDomainFree(dom);
	}
	if (conn)
		(void)virConnectClose(conn);
	return state;
}

static struct hypervisor *open_real(const char *uri, const char *what)
{
	struct hypervisor *h;
	struct hypervisor_event ev;

	mark = clock_boottime();
	h = open_at(uri);
	timing_note(what);
	ev = expect(h, HYPERVISOR_READY, "", 0);
	timing_note("READY after that");
	assert_true(ev.code == 0 && strstr(ev.version, "QEMU "));
	return h;
}

/* Paused from its first instruction on, then it runs. */
static void real_start(struct hypervisor *h, const char *uri, const struct hypervisor_vm *vm, uint64_t gen)
{
	off_t before = console_size();

	mark = clock_boottime();
	ops->start(h, vm, gen);
	qemu_pid = expect(h, HYPERVISOR_STARTED, vm->name, gen).pid;
	timing_note("start");
	assert_true(is_alive(qemu_pid));
	assert_int_equal(state_of(uri, vm->name), VIR_DOMAIN_PAUSED);
	mark = clock_boottime();
	ops->resume(h, vm->name, gen);
	assert_int_equal(expect(h, HYPERVISOR_RESUMED, vm->name, gen).code, 0);
	timing_note("resume");
	wait_console(before);
	timing_note("first words of the guest");
}

static struct hypervisor *real_reopen(const char *uri, const char *what)
{
	struct hypervisor_found found[4];
	struct hypervisor *h = open_real(uri, what);

	assert_int_equal(ops->found(h, found, 4), 1);
	assert_true(strcmp(found[0].vm, "web") == 0 && strcmp(found[0].uuid, UUID) == 0);
	assert_int_equal(found[0].pid, qemu_pid);
	assert_true(is_alive(qemu_pid));
	return h;
}

static void real_end(struct hypervisor *h, uint64_t gen)
{
	struct hypervisor_found found[4];

	assert_int_equal(kill(qemu_pid, SIGKILL), 0);
	wait_dead(qemu_pid);
	mark = clock_boottime();
	ops->forget(h, "web", gen);
	assert_int_equal(expect(h, HYPERVISOR_FORGOTTEN, "web", gen).code, 0);
	timing_note("forget after SIGKILL");
	assert_int_equal(ops->found(h, found, 4), 0);
}

static struct hypervisor_vm real_vm(char ret_uri[128])
{
	struct hypervisor_vm vm = vm_named("web");

	(void)snprintf(ret_uri, 128, "qemu:///embed?root=%s/libvirt", dir);
	(void)snprintf(vm.kernel, sizeof vm.kernel, GUEST_FOLDER "/vmlinuz");
	(void)snprintf(vm.initrd, sizeof vm.initrd, GUEST_FOLDER "/initrd.img");
	(void)snprintf(vm.cmdline, sizeof vm.cmdline, "console=ttyS0 quiet kedge.test=<&\"");
	return vm;
}

/* The life of a first kedged, in a process of its own: only so is the driver really opened again by the next. Its exit
 * status says whether it went well. */
static void first_life(void)
{
	char uri[128];
	struct hypervisor_vm vm = real_vm(uri);
	struct hypervisor *h = open_real(uri, "open of a fresh root");

	real_start(h, uri, &vm, 1);
	ops->close(h);
	timing_note("close");
}

static void run_first_life(void)
{
	char *const argv[] = {program, first, dir, NULL};
	struct buf text = {0};
	char path[128];
	int status;
	pid_t pid;

	assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	(void)snprintf(path, sizeof path, "%s/libvirt/run/qemu/web.pid", dir);
	if (file_read(path, 16, &text, NULL) == 0) {
		buf_append(&text, "", 1);
		qemu_pid = (int32_t)strtol((char *)text.data, NULL, 10);
	}
	buf_free(&text);
	assert_int_equal(status, 0);
	assert_true(qemu_pid > 0);
}

/* Neither our end nor our return is seen by a guest. */
static void test_guest_goes_on(void **state KEDGE_UNUSED)
{
	struct hypervisor *h;
	char uri[128];

	need_guest(true);
	(void)real_vm(uri);
	run_first_life();
	wait_console(console_size());
	assert_true(is_alive(qemu_pid));
	assert_int_equal(kill(qemu_pid, SIGSTOP), 0); /* the guard did it meanwhile: nothing may hang */
	h = real_reopen(uri, "open again, the guest being frozen");
	assert_int_equal(kill(qemu_pid, SIGCONT), 0);
	ops->resume(h, "web", 1);
	assert_int_equal(expect(h, HYPERVISOR_RESUMED, "web", 1).code, 0);
	wait_console(console_size());
	ops->close(h);
	h = real_reopen(uri, "open in the same process");
	real_end(h, 1);
	ops->close(h);
}

/* The first presses may come before the guest listens. */
static void press_until_off(struct hypervisor *h)
{
	usec_t end = clock_boottime() + WAIT;

	while (is_alive(qemu_pid) && clock_boottime() < end) {
		struct hypervisor_event ev;

		ops->shutdown(h, "web", 3);
		ev = expect(h, HYPERVISOR_SHUTDOWN, "web", 3);
		assert_true(ev.code == 0 || ev.text[0]);
		for (int i = 0; i < 25 && is_alive(qemu_pid); i++)
			nap();
	}
	assert_false(is_alive(qemu_pid));
	timing_note("power button to the end");
}

static void test_guest_ends(void **state KEDGE_UNUSED)
{
	struct hypervisor *h;
	struct hypervisor_vm vm;
	char uri[128];

	need_guest(true);
	vm = real_vm(uri);
	h = open_real(uri, "open");
	real_start(h, uri, &vm, 2);
	assert_int_equal(kill(qemu_pid, SIGKILL), 0);
	real_start(h, uri, &vm, 3); /* without a forget: libvirt may not have noticed */
	press_until_off(h);
	ops->forget(h, "web", 3);
	assert_int_equal(expect(h, HYPERVISOR_FORGOTTEN, "web", 3).code, 0);
	(void)snprintf(vm.kernel, sizeof vm.kernel, "/nowhere/vmlinuz");
	ops->start(h, &vm, 4); /* leaves nothing behind */
	assert_non_null(strstr(expect(h, HYPERVISOR_START_FAILED, "web", 4).text, "/nowhere/vmlinuz"));
	assert_int_equal(state_of(uri, "web"), -1);
	ops->close(h);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_definition),    cmocka_unit_test(test_long_definition),
		cmocka_unit_test(test_life),          cmocka_unit_test(test_failures),
		cmocka_unit_test(test_lanes),         cmocka_unit_test(test_probe),
		cmocka_unit_test(test_guest_goes_on), cmocka_unit_test(test_guest_ends),
	};

	if (argc == 3 && strcmp(argv[1], first) == 0) {
		(void)snprintf(dir, sizeof dir, "%s", argv[2]);
		wake = eventfd(0, EFD_CLOEXEC);
		first_life();
		return 0;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
