/*
 * hash.h - the four hashes, each for one purpose; no other file chooses.
 *
 * Threads:    any; nothing here has state.
 *
 *   hash_bytes   tables in memory: keyed, so that a peer cannot choose names that collide
 *   hash_home    which shard is a room's home: the same in every process and version
 *   hash128      identity of a key or content: no two different inputs are ever found equal
 *   crc32c       damage on disk; guards against accident, not against an attacker
 */
#pragma once

#include "core/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Random bytes drawn once per process (os_random). */
struct hash_key {
    uint8_t bytes[16];
};

/* 16 bytes as they go to disk. */
struct hash128 {
    uint8_t bytes[16];
};

/* SipHash-2-4. */
uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t size);

/* SipHash-2-4 with a fixed key. Never change it: journals of a node with several shards, and later
 * several nodes, agree by it on where a room lives. Not keyed, so a peer can choose rooms that
 * share a home: that costs balance, not correctness, and a creator of rooms is limited by rate. */
uint64_t hash_home(struct slice room_id);

/* BLAKE2b with 16 bytes. */
struct hash128 hash128(const void *data, size_t size);

/* The same over several parts, each preceded by its size, so that ("ab", "c") and ("a", "bc")
 * differ. hash128 of one buffer is not hash128_parts of one part. */
struct hash128 hash128_parts(const struct slice *parts, uint32_t count);

static inline bool hash128_equal(struct hash128 a, struct hash128 b)
{
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

/* CRC-32C (RFC 3720 appendix B.4). seed 0 begins; the result of one piece seeds the next:
 * crc32c(crc32c(0, a), b) is the checksum of a followed by b. */
uint32_t crc32c(uint32_t seed, const void *data, size_t size);

/* The same by table, for processors without SSE 4.2; here so that a test can compare the two. */
uint32_t crc32c_portable(uint32_t seed, const void *data, size_t size);
