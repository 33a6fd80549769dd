/*
 * test_hash.c - the hashes are the published ones, and stay the ones that are on disk.
 *
 * Method: vectors of RFC 3720 B.4 (CRC-32C), of the SipHash-2-4 reference and of BLAKE2b as
 * Python's hashlib gives it (a part goes in behind its size, 4 bytes little endian); the two
 * implementations of CRC-32C against each other at every size and alignment.
 */
#include "core/check.h"
#include "core/hash.h"

static void crc32c_gives_the_published_values(void)
{
    uint8_t bytes[48];

    CHECK(crc32c(0, "", 0) == 0);
    CHECK(crc32c(0, "123456789", 9) == 0xe3069283);
    memset(bytes, 0, 32);
    CHECK(crc32c(0, bytes, 32) == 0x8a9136aa); /* RFC 3720 B.4: 32 bytes of zeroes */
    memset(bytes, 0xff, 32);
    CHECK(crc32c(0, bytes, 32) == 0x62a8ab43); /* of ones */
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = i;
    }
    CHECK(crc32c(0, bytes, 32) == 0x46dd794e); /* incrementing */
    for (uint8_t i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)(31 - i);
    }
    CHECK(crc32c(0, bytes, 32) == 0x113fdb5c); /* decrementing */
    static const uint8_t command[48] = {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0, 0,
                                        0x14, 0,    0, 0, 0, 0, 4, 0, 0, 0, 0, 0x14, 0, 0, 0, 0x18,
                                        0x28, 0,    0, 0, 0, 0, 0, 0, 2, 0, 0, 0,    0, 0, 0, 0};
    CHECK(crc32c(0, command, 48) == 0xd9963a56); /* an iSCSI SCSI Read (10) command */
}

static void both_ways_agree_at_every_size_and_alignment(void)
{
    static uint8_t bytes[600];

    for (uint32_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 167 + (i >> 3));
    }
    for (uint32_t at = 0; at < 9; at++) {
        for (uint32_t size = 0; size < 560; size++) {
            CHECK(crc32c(size, bytes + at, size) == crc32c_portable(size, bytes + at, size));
        }
    }
}

static void pieces_give_what_the_whole_gives(void)
{
    static const char text[] = "The quick brown fox jumps over the lazy dog, twice over.";
    const uint32_t whole = crc32c(0, text, sizeof(text));

    for (size_t cut = 0; cut <= sizeof(text); cut++) {
        CHECK(crc32c(crc32c(0, text, cut), text + cut, sizeof(text) - cut) == whole);
    }
}

static void every_single_bit_changes_the_checksum(void)
{
    uint8_t bytes[64] = {1, 2, 3};
    const uint32_t before = crc32c(0, bytes, sizeof(bytes));

    for (uint32_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        CHECK(crc32c(0, bytes, sizeof(bytes)) != before);
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
}

static void keyed_hash_is_siphash(void)
{
    struct hash_key key;
    uint8_t bytes[15];

    for (uint8_t i = 0; i < 16; i++) {
        key.bytes[i] = i;
    }
    for (uint8_t i = 0; i < 15; i++) {
        bytes[i] = i;
    }
    CHECK(hash_bytes(&key, bytes, 15) == 0xa129ca6149be45e5U); /* SipHash paper, appendix A */
    CHECK(hash_bytes(&key, bytes, 0) == 0x726fdb47dd0e0e31U);  /* reference vectors, first */
    key.bytes[0] ^= 1;
    CHECK(hash_bytes(&key, bytes, 15) != 0xa129ca6149be45e5U); /* the key matters */
}

static void home_never_changes(void)
{
    /* SipHash-2-4 with the key "damso home shard"; a different value here would move every room. */
    CHECK(hash_home(SLICE("")) == 0xe06103d1e3c15d0fU);
    CHECK(hash_home(SLICE("lobby")) == 0xab6ffc17ec4655e6U);
    CHECK(hash_home(SLICE("r")) != hash_home(SLICE("s")));
}

static void homes_are_spread_evenly(void)
{
    uint32_t rooms[4] = {0};

    for (uint32_t i = 0; i < 40000; i++) {
        char name[16];
        const int size = snprintf(name, sizeof(name), "room-%u", i);
        rooms[hash_home((struct slice){name, (uint32_t)size}) % 4]++;
    }
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(rooms[i] > 9600 && rooms[i] < 10400); /* 4.6 standard deviations */
    }
}

static void digest_is_blake2b(void)
{
    static const uint8_t empty[16] = {0xca, 0xe6, 0x69, 0x41, 0xd9, 0xef, 0xbd, 0x40,
                                      0x4e, 0x4d, 0x88, 0x75, 0x8e, 0xa6, 0x76, 0x70};
    static const uint8_t abc[16] = {0xcf, 0x4a, 0xb7, 0x91, 0xc6, 0x2b, 0x8d, 0x2b,
                                    0x21, 0x09, 0xc9, 0x02, 0x75, 0x28, 0x78, 0x16};

    CHECK(memcmp(hash128("", 0).bytes, empty, 16) == 0);
    CHECK(memcmp(hash128("abc", 3).bytes, abc, 16) == 0);
    CHECK(hash128_equal(hash128("abc", 3), hash128("abc", 3)));
    CHECK(!hash128_equal(hash128("abc", 3), hash128("abd", 3)));
}

static void parts_are_told_apart(void)
{
    const struct slice one[] = {SLICE("ab"), SLICE("c")};
    const struct slice two[] = {SLICE("a"), SLICE("bc")};
    const struct slice three[] = {SLICE("abc"), SLICE("")};
    static const uint8_t expected[16] = {0xef, 0xe7, 0x2f, 0x54, 0x2f, 0xb4, 0x9a, 0x82,
                                         0x55, 0x44, 0x24, 0x1c, 0xc5, 0x4c, 0x1d, 0xdc};

    CHECK(memcmp(hash128_parts(one, 2).bytes, expected, 16) == 0);
    CHECK(!hash128_equal(hash128_parts(one, 2), hash128_parts(two, 2)));
    CHECK(!hash128_equal(hash128_parts(one, 2), hash128_parts(three, 2)));
    CHECK(!hash128_equal(hash128_parts(three, 1), hash128_parts(three, 2)));
}

int main(void)
{
    crc32c_gives_the_published_values();
    both_ways_agree_at_every_size_and_alignment();
    pieces_give_what_the_whole_gives();
    every_single_bit_changes_the_checksum();
    keyed_hash_is_siphash();
    home_never_changes();
    homes_are_spread_evenly();
    digest_is_blake2b();
    parts_are_told_apart();
    puts("9 passed, 0 failed");
    return 0;
}
