/*
 * micro_json.c - nanoseconds to read a typical request and to write a typical event.
 *
 * Method: each case runs for ROUNDS rounds of REPEATS; the quickest round counts, since whatever
 *         else the machine does only ever adds. A result is folded into a sum that is printed, so
 *         that the compiler cannot leave the work out.
 */
#include "core/check.h"
#include "core/json.h"

#include <inttypes.h>
#include <time.h>

enum { REPEATS = 1000, ROUNDS = 1000, OUT_BYTES = 1024 };

static const struct slice names[] = {
    {"type", 4}, {"id", 2},       {"room_id", 7},  {"text", 4},
    {"data", 4}, {"reply_to", 8}, {"file_ids", 8}, {"idempotency_key", 15}};
enum { NAMES = sizeof names / sizeof names[0] };

/* What a session does with a request before it looks at what it means. */
static uint64_t read_request(struct slice text)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    uint64_t seen = 0;
    uint64_t sum = 0;
    int got = json_open_object(&reader, text);

    CHECK(got == 0);
    while ((got = json_next_member(&reader, &key, &value)) > 0) {
        const int name = json_key_take(&key, names, NAMES, &seen);
        CHECK(name >= 0);
        sum += value.string.size;
    }
    CHECK(got == 0);
    return sum + seen;
}

/* A pushed message, as in docs/PROTOCOL.md; text is what is to be written as a string. */
static uint64_t write_event(struct slice text)
{
    char out[OUT_BYTES];
    struct json_writer writer = json_writer_on(out, sizeof out);

    JSON_WRITE(&writer, "{\"type\":\"message\",\"room_id\":\"");
    JSON_WRITE(&writer, "general");
    JSON_WRITE(&writer, "\",\"seq\":");
    json_write_u64(&writer, 1234567);
    JSON_WRITE(&writer, ",\"user_id\":\"");
    JSON_WRITE(&writer, "u_01hf3zq8k2");
    JSON_WRITE(&writer, "\",\"username\":");
    json_write_string(&writer, SLICE("margarita"));
    JSON_WRITE(&writer, ",\"text\":");
    json_write_string(&writer, text);
    JSON_WRITE(&writer, ",\"created_at\":\"2026-11-21T09:30:00.123Z\"}");
    CHECK(!writer.overflow);
    return writer.size + (uint8_t)out[writer.size / 2];
}

static uint64_t now_ns(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void measure(const char *name, uint64_t (*work)(struct slice), const char *text)
{
    const struct slice input = {text, (uint32_t)strlen(text)};
    uint64_t best = UINT64_MAX;
    uint64_t sum = 0;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t begin = now_ns();
        for (uint32_t i = 0; i < REPEATS; i++) {
            sum += work(input);
        }
        const uint64_t spent = now_ns() - begin;
        best = spent < best ? spent : best;
    }
    printf("%-36s %4" PRIu32 " bytes %7.1f ns (sum %" PRIu64 ")\n", name, input.size,
           (double)best / REPEATS, sum);
}

int main(void)
{
    static const char latin[] = "The quick brown fox jumps over the lazy dog, and then it sits "
                                "down for a pleasant talk; ok?";
    static const char korean[] =
        "\xEC\x95\x88\xEB\x85\x95\xED\x95\x98\xEC\x84\xB8\xEC\x9A\x94 "
        "\xEC\x98\xA4\xEB\x8A\x98 \xEB\x82\xA0\xEC\x94\xA8\xEA\xB0\x80 "
        "\xEC\xB0\xB8 \xEC\xA2\x8B\xEB\x84\xA4\xEC\x9A\x94 \xEB\x8B\xB4\xEC\x86\x8C "
        "\xED\x95\xA0\xEA\xB9\x8C\xEC\x9A\x94 \xEC\xA0\x80\xEB\x85\x81\xEC\x97\x90";

    measure(
        "read: send, Latin text", read_request,
        "{\"type\":\"send\",\"id\":4,\"room_id\":\"general\",\"text\":\"The quick brown fox jumps "
        "over the lazy dog, and then it sits down for a pleasant talk; ok?\","
        "\"idempotency_key\":\"01HF3ZQ8K2V7N4M5B6C7D8E9F0\"}");
    measure("read: send, Korean text", read_request,
            "{\"type\":\"send\",\"id\":4,\"room_id\":\"general\",\"text\":"
            "\"\xEC\x95\x88\xEB\x85\x95\xED\x95\x98\xEC\x84\xB8\xEC\x9A\x94 "
            "\xEC\x98\xA4\xEB\x8A\x98 \xEB\x82\xA0\xEC\x94\xA8\xEA\xB0\x80 "
            "\xEC\xB0\xB8 \xEC\xA2\x8B\xEB\x84\xA4\xEC\x9A\x94 \xEB\x8B\xB4\xEC\x86\x8C "
            "\xED\x95\xA0\xEA\xB9\x8C\xEC\x9A\x94 \xEC\xA0\x80\xEB\x85\x81\xEC\x97\x90\","
            "\"idempotency_key\":\"01HF3ZQ8K2V7N4M5B6C7D8E9F0\"}");
    measure(
        "read: send, text with escapes", read_request,
        "{\"type\":\"send\",\"id\":4,\"room_id\":\"general\",\"text\":\"He said \\\"hello\\\" and "
        "left.\\nThen \\u00e9t\\u00e9 came \\ud83d\\ude00 again.\","
        "\"idempotency_key\":\"01HF3ZQ8K2V7N4M5B6C7D8E9F0\"}");
    measure("read: send, data and files", read_request,
            "{\"type\":\"send\",\"id\":4,\"room_id\":\"general\",\"text\":\"see these\",\"data\":"
            "{\"kind\":\"poll\",\"options\":[\"red\",\"green\",\"blue\"],\"closes\":1763717400,"
            "\"style\":{\"wide\":true,\"columns\":2}},\"file_ids\":[\"f_01hf3\",\"f_01hf4\"],"
            "\"reply_to\":77,\"idempotency_key\":\"01HF3ZQ8K2V7N4M5B6C7D8E9F0\"}");
    measure("write: message, Latin text", write_event, latin);
    measure("write: message, Korean text", write_event, korean);
    return 0;
}
