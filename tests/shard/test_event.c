/*
 * test_event.c - what the server says is the JSON of docs/PROTOCOL.md, and never longer than was
 *                reckoned.
 *
 * Method: whole texts against the protocol's own; the worst names against event_bytes_max.
 */
#include "core/check.h"
#include "core/record.h"
#include "core/rfc3339.h"
#include "shard/event.h"

#include <string.h>

static struct rfc3339_cache cache;
static char text[1 << 16];

static struct slice written(const struct event *event)
{
    struct json_writer writer = json_writer_on(text, sizeof(text));
    event_write(&writer, event, &cache);
    CHECK(!writer.overflow);
    CHECK(writer.size <= event_bytes_max(event));
    return json_written(&writer);
}

static struct event message(void)
{
    return (struct event){.kind = RECORD_MESSAGE,
                          .seq = 134,
                          .at_ms = 1795253400123, /* 2026-11-21T09:30:00.123Z */
                          .room_id = SLICE("r"),
                          .user_id = SLICE("u1"),
                          .username = SLICE("Anna"),
                          .text = SLICE("\"hi \\u00e9\"")};
}

static void a_message_is_as_the_protocol_has_it(void)
{
    struct event event = message();
    CHECK(
        slice_equal(written(&event),
                    SLICE("{\"type\":\"message\",\"room_id\":\"r\",\"seq\":134,\"user_id\":\"u1\","
                          "\"username\":\"Anna\",\"text\":\"hi \\u00e9\","
                          "\"created_at\":\"2026-11-21T09:30:00.123Z\"}")));
    event.data = SLICE("{\"a\": [1, 2]}"); /* passed on as it came */
    event.reply_to = 77;
    CHECK(
        slice_equal(written(&event),
                    SLICE("{\"type\":\"message\",\"room_id\":\"r\",\"seq\":134,\"user_id\":\"u1\","
                          "\"username\":\"Anna\",\"text\":\"hi \\u00e9\",\"data\":{\"a\": [1, 2]},"
                          "\"reply_to\":77,\"created_at\":\"2026-11-21T09:30:00.123Z\"}")));
}

static void members_come_and_go_with_their_role(void)
{
    struct event event = message();
    event.kind = RECORD_JOINED;
    event.role = ROLE_OWNER;
    CHECK(slice_equal(written(&event),
                      SLICE("{\"type\":\"member\",\"room_id\":\"r\",\"seq\":134,\"user_id\":\"u1\","
                            "\"username\":\"Anna\",\"action\":\"joined\",\"role\":\"owner\","
                            "\"created_at\":\"2026-11-21T09:30:00.123Z\"}")));
    event.kind = RECORD_LEFT;
    event.role = ROLE_MEMBER;
    const struct slice left = written(&event);
    CHECK(memmem(left.data, left.size, "\"action\":\"left\",\"role\":\"member\"", 31) != NULL);
}

static void the_worst_names_stay_within_the_reckoning(void)
{
    char id[64];
    char name[128];
    char room[64];
    struct event event = message();
    memset(id, 1, sizeof(id)); /* each becomes \u0001 */
    memset(name, 2, sizeof(name));
    memset(room, 'r', sizeof(room));
    event.seq = event.reply_to = UINT64_MAX;
    event.room_id = (struct slice){room, sizeof(room)};
    event.user_id = (struct slice){id, sizeof(id)};
    event.username = (struct slice){name, sizeof(name)};
    CHECK(written(&event).size > 6 * 192);
    event.kind = RECORD_JOINED;
    event.role = ROLE_MEMBER;
    (void)written(&event);
}

static void an_epoch_is_sixteen_digits_and_reads_back(void)
{
    static const uint64_t epochs[] = {0, 1, 0xab, 0x0123456789abcdef, UINT64_MAX};
    for (uint32_t i = 0; i < sizeof(epochs) / sizeof(epochs[0]); i++) {
        uint64_t back = 5;
        struct json_writer writer = json_writer_on(text, sizeof(text));
        event_write_epoch(&writer, epochs[i]);
        CHECK(writer.size == 18 && text[0] == '"' && text[17] == '"');
        CHECK(event_parse_epoch((struct slice){text + 1, 16}, &back) && back == epochs[i]);
    }
    static const char *const wrong[] = {"",
                                        "00000000000000a",
                                        "00000000000000abc",
                                        "00000000000000AB",
                                        "000000000000000g",
                                        "0x000000000000ab"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint64_t back;
        CHECK(!event_parse_epoch((struct slice){wrong[i], (uint32_t)strlen(wrong[i])}, &back));
    }
}

static void an_error_names_code_text_and_when_to_try_again(void)
{
    struct json_writer writer = json_writer_on(text, sizeof(text));
    event_write_error(&writer, SLICE("7"), ERROR_UNAVAILABLE, (struct slice){NULL, 0});
    CHECK(slice_equal(json_written(&writer),
                      SLICE("{\"type\":\"error\",\"id\":7,\"code\":\"unavailable\",\"message\":"
                            "\"cannot be done now, try again\",\"retry_after\":1}")));
    writer = json_writer_on(text, sizeof(text));
    event_write_error(&writer, (struct slice){NULL, 0}, ERROR_NOT_A_MEMBER, SLICE("a \"b\""));
    CHECK(slice_equal(json_written(&writer),
                      SLICE("{\"type\":\"error\",\"code\":\"not_a_member\",\"message\":"
                            "\"a \\\"b\\\"\"}")));
}

int main(void)
{
    a_message_is_as_the_protocol_has_it();
    members_come_and_go_with_their_role();
    the_worst_names_stay_within_the_reckoning();
    an_epoch_is_sixteen_digits_and_reads_back();
    an_error_names_code_text_and_when_to_try_again();
    puts("5 passed, 0 failed");
    return 0;
}
