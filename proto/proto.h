/* SPDX-License-Identifier: Apache-2.0
 * Messages: msgpack with versions, the table of error codes, and the types that several folders exchange. */
#ifndef KEDGE_PROTO_PROTO_H
#define KEDGE_PROTO_PROTO_H

#include "proto/bulk.h"
#include "proto/engine.h"
#include "proto/error.h"
#include "proto/message.h"
#include "proto/pack.h"
#include "proto/peer.h"
#include "proto/unpack.h"

#endif
