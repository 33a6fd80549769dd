/*
 * persist_mongodb.h - persistence alone, end to end into MongoDB, beside libmongoc alone.
 *
 * Walk:  from bench/damso_bench.c; by bench/persist_load.c, and bench/micro/micro_mongo.c.
 *
 * A run of each in turn (A B A B ...), each on an empty database with our collections, validators
 * and indexes: A gives the records to persistence and waits until MongoDB has all of them; B
 * inserts the same documents in unordered bulks of 1,000 over one connection. The ratio is that of
 * the medians.
 */
#pragma once

#include "bench/options.h"
#include "bench/persist_figures.h"

/* 0 or -errno with the problem said. */
int persist_mongodb_run(const struct options *options, struct persist_figures *figures);
