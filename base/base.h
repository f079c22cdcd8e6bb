/* SPDX-License-Identifier: Apache-2.0
 * What every other folder stands on: time, errors, checks, buffers, files, the timing that safety rests on. */
#ifndef KEDGE_BASE_BASE_H
#define KEDGE_BASE_BASE_H

#include "base/buf.h"
#include "base/check.h"
#include "base/child.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/fdpass.h"
#include "base/fdpass_queue.h"
#include "base/file.h"
#include "base/guard_page.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/name.h"
#include "base/planted.h"
#include "base/random.h"
#include "base/timing.h"
#include "base/types.h"
#include "base/version.h"

#endif
