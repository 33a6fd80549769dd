/*
 * micro_mongo.h - what libmongoc alone does with our documents, beside which persistence is judged.
 *
 * Threads:    any; each call has a client of its own.
 * Units:      seconds.
 */
#pragma once

#include "core/check.h"
#include "core/slice.h"

#include <stdint.h>

enum { MICRO_MONGO_WHY = 512, MICRO_MONGO_BULK = 1000, MICRO_MONGO_RECORD_MAX = 2048 };

/* Writes record number (core/record.h); returns its size. */
typedef uint32_t (*micro_mongo_record)(void *context, uint64_t number,
                                       uint8_t ret[MICRO_MONGO_RECORD_MAX]);

/* Inserts the documents of count records into `events` of the URI's database, over one connection,
 * in unordered bulks of MICRO_MONGO_BULK, each with {w: "majority", j: true} and one after the
 * other; documents are made before the clock runs. 0 with the time that the driver and the server
 * took, or -errno with a sentence. */
NODISCARD int micro_mongo_insert(const char *uri, uint64_t count, micro_mongo_record record,
                                 void *context, double *ret_s, char why[MICRO_MONGO_WHY]);

/* Drops the URI's database. */
NODISCARD int micro_mongo_drop(const char *uri, char why[MICRO_MONGO_WHY]);
