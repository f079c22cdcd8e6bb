/* SPDX-License-Identifier: Apache-2.0
 * The tables. Every stored object has a tenant in its key ("default" until tenants are used). */
#include "store/internal.h"

const char store_schema[] =
	"CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY CHECK(id=1), applied INTEGER NOT NULL,"
	" version INTEGER NOT NULL, cluster TEXT NOT NULL, name TEXT NOT NULL, node_max INTEGER NOT NULL,"
	" gen_max INTEGER NOT NULL, event_max INTEGER NOT NULL, wall INTEGER NOT NULL);"
	"INSERT OR IGNORE INTO meta VALUES(1,0,1,'','',0,0,0,0);"
	"CREATE TABLE IF NOT EXISTS nodes(node INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" address TEXT NOT NULL UNIQUE, zone TEXT NOT NULL, role TEXT NOT NULL, server INTEGER NOT NULL UNIQUE,"
	" joined INTEGER NOT NULL);"
	"CREATE TABLE IF NOT EXISTS tokens(id TEXT PRIMARY KEY, secret TEXT NOT NULL, role TEXT NOT NULL,"
	" expires INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS vms(tenant TEXT NOT NULL, name TEXT NOT NULL UNIQUE, vcpus INTEGER NOT NULL,"
	" memory INTEGER NOT NULL, run INTEGER NOT NULL, kernel TEXT NOT NULL, initrd TEXT NOT NULL,"
	" cmdline TEXT NOT NULL, priority INTEGER NOT NULL, uuid TEXT NOT NULL UNIQUE, mac TEXT NOT NULL,"
	" machine TEXT NOT NULL, created INTEGER NOT NULL, is_export INTEGER NOT NULL, node INTEGER NOT NULL,"
	" PRIMARY KEY(tenant, name)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS placements(tenant TEXT NOT NULL, vm TEXT NOT NULL UNIQUE, owner INTEGER NOT NULL,"
	" gen INTEGER NOT NULL, movable INTEGER NOT NULL, mver INTEGER NOT NULL, want_movable INTEGER NOT NULL,"
	" end_gen INTEGER NOT NULL, end_hard INTEGER NOT NULL, fails INTEGER NOT NULL, since INTEGER NOT NULL,"
	" reason TEXT NOT NULL, deleting INTEGER NOT NULL, confirmed INTEGER NOT NULL,"
	" PRIMARY KEY(tenant, vm)) WITHOUT ROWID;"
	/* VOLUME-PROTOCOL, section 1 */
	"CREATE TABLE IF NOT EXISTS volumes(tenant TEXT NOT NULL, name TEXT NOT NULL UNIQUE, id TEXT NOT NULL UNIQUE,"
	" size INTEGER NOT NULL, replicas INTEGER NOT NULL, vm TEXT NOT NULL, disk INTEGER NOT NULL,"
	" version INTEGER NOT NULL, epoch INTEGER NOT NULL, primary_node INTEGER NOT NULL,"
	" primary_since INTEGER NOT NULL, fork INTEGER NOT NULL, cold INTEGER NOT NULL, vm_epoch INTEGER NOT NULL,"
	" deleting INTEGER NOT NULL, degraded INTEGER NOT NULL, created INTEGER NOT NULL,"
	" PRIMARY KEY(tenant, name)) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS volumes_vm ON volumes(tenant, vm, disk, name);"
	"CREATE TABLE IF NOT EXISTS replicas(volume TEXT NOT NULL, node INTEGER NOT NULL, replica TEXT NOT NULL,"
	" in_sync INTEGER NOT NULL, incarnation INTEGER NOT NULL, reported INTEGER NOT NULL, lost INTEGER NOT NULL,"
	" leaving INTEGER NOT NULL, PRIMARY KEY(volume, node)) WITHOUT ROWID;"
	/* Volumes that are to grow, and for how many bytes of one a node has said that it has room. */
	"CREATE TABLE IF NOT EXISTS growing(volume TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS rooms(volume TEXT NOT NULL, node INTEGER NOT NULL, size INTEGER NOT NULL,"
	" PRIMARY KEY(volume, node)) WITHOUT ROWID;"
	/* On which nodes replicas shall be, as administrators named them. */
	"CREATE TABLE IF NOT EXISTS wanted(volume TEXT NOT NULL, number INTEGER NOT NULL, node INTEGER NOT NULL,"
	" PRIMARY KEY(volume, number)) WITHOUT ROWID;"
	/* Images, who holds which file, the files of VMs, what volumes are filled from. */
	"CREATE TABLE IF NOT EXISTS images(tenant TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,"
	" bytes INTEGER NOT NULL, size INTEGER NOT NULL, format TEXT NOT NULL, copies INTEGER NOT NULL,"
	" created INTEGER NOT NULL, PRIMARY KEY(tenant, name)) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS holders(digest TEXT NOT NULL, node INTEGER NOT NULL, PRIMARY KEY(digest, node))"
	" WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS vm_files(tenant TEXT NOT NULL, vm TEXT NOT NULL, kernel_digest TEXT NOT NULL,"
	" initrd_digest TEXT NOT NULL, user_data TEXT NOT NULL, meta_data TEXT NOT NULL, PRIMARY KEY(tenant, vm))"
	" WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS sources(volume TEXT PRIMARY KEY, image TEXT NOT NULL, digest TEXT NOT NULL,"
	" format TEXT NOT NULL, filled INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS events(id INTEGER PRIMARY KEY, wall INTEGER NOT NULL, kind TEXT NOT NULL,"
	" object TEXT NOT NULL, text TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS sessions(id INTEGER PRIMARY KEY, last INTEGER NOT NULL, num_max INTEGER NOT NULL);"
	"CREATE INDEX IF NOT EXISTS sessions_last ON sessions(last, id);"
	"CREATE TABLE IF NOT EXISTS answers(session INTEGER NOT NULL, num INTEGER NOT NULL, code INTEGER NOT NULL,"
	" text TEXT NOT NULL, PRIMARY KEY(session, num)) WITHOUT ROWID;";

const char *const store_tables[] = {"SELECT * FROM meta",
				    "SELECT * FROM nodes ORDER BY node",
				    "SELECT * FROM tokens ORDER BY id",
				    "SELECT * FROM vms ORDER BY tenant, name",
				    "SELECT * FROM placements ORDER BY tenant, vm",
				    "SELECT * FROM volumes ORDER BY tenant, name",
				    "SELECT * FROM replicas ORDER BY volume, node",
				    "SELECT * FROM growing ORDER BY volume",
				    "SELECT * FROM rooms ORDER BY volume, node",
				    "SELECT * FROM wanted ORDER BY volume, number",
				    "SELECT * FROM images ORDER BY tenant, name",
				    "SELECT * FROM holders ORDER BY digest, node",
				    "SELECT * FROM vm_files ORDER BY tenant, vm",
				    "SELECT * FROM sources ORDER BY volume",
				    "SELECT * FROM events ORDER BY id",
				    "SELECT * FROM sessions ORDER BY id",
				    "SELECT * FROM answers ORDER BY session, num",
				    NULL};
