/*
 * embedded.h - the engine of persist.mode embedded: everything goes into SQLite in the data
 *              directory, in transactions of many records (batch.h).
 *
 * Walk:       from persist.c by struct persist_engine (thread.h, which says who calls what); to
 *             batch.c, and by its answerer to answer.c and account.c.
 * Ownership:  its state is what struct persist marks with E.
 */
#pragma once

#include "persist/thread.h"

enum { EMBEDDED_BOOT_ID_BYTES = 36 };

extern const struct persist_engine embedded_engine;

/* This boot's id, as the kernel tells it. Where it does not, a random one: then a crash counts as
 * one of the machine, which is the careful side. Any engine, any thread. */
void embedded_boot_id(char bytes[EMBEDDED_BOOT_ID_BYTES]);
