/* record.c - see record.h for the layout. */
#include "core/record.h"

#include "core/check.h"

#include <errno.h>

enum { RECORD_VERSION = 1, ID_BYTES_MAX = 64, NAME_BYTES_MAX = 128 };

struct layout {
    uint8_t version, kind, role, flags;
    uint8_t room_bytes, user_bytes, name_bytes, zero_1;
    uint32_t body_bytes, zero_2;
    uint64_t epoch, seq, at_ms;
    uint8_t key_digest[16];
    uint64_t content_digest;
};
_Static_assert(sizeof(struct layout) == RECORD_HEADER_BYTES, "the layout is on disk");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the layout is little endian");

static char *put(char *at, struct slice bytes)
{
    memcpy(at, bytes.data, bytes.size);
    return at + bytes.size;
}

void record_encode(const struct record *record, void *bytes)
{
    CHECK(record->room_id.size >= 1 && record->room_id.size <= ID_BYTES_MAX);
    CHECK(record->user_id.size >= 1 && record->user_id.size <= ID_BYTES_MAX);
    CHECK(record->username.size <= NAME_BYTES_MAX);

    struct layout head = {
        .version = RECORD_VERSION,
        .kind = record->kind,
        .role = record->role,
        .flags = record->flags,
        .room_bytes = (uint8_t)record->room_id.size,
        .user_bytes = (uint8_t)record->user_id.size,
        .name_bytes = (uint8_t)record->username.size,
        .body_bytes = record->body.size,
        .epoch = record->epoch,
        .seq = record->seq,
        .at_ms = record->at_ms,
        .content_digest = record->content_digest,
    };
    memcpy(head.key_digest, record->key_digest, sizeof(head.key_digest));
    memcpy(bytes, &head, sizeof(head));
    char *at = (char *)bytes + sizeof(head);
    at = put(at, record->room_id);
    at = put(at, record->user_id);
    at = record->username.size > 0 ? put(at, record->username) : at;
    (void)put(at, record->body);
}

static bool head_is_sound(const struct layout *head, uint32_t size)
{
    const uint64_t total = (uint64_t)RECORD_HEADER_BYTES + head->room_bytes + head->user_bytes +
                           head->name_bytes + head->body_bytes;
    return head->version == RECORD_VERSION && head->kind >= RECORD_MESSAGE &&
           head->kind <= RECORD_LEFT && head->role <= ROLE_OWNER && head->room_bytes >= 1 &&
           head->room_bytes <= ID_BYTES_MAX && head->user_bytes >= 1 &&
           head->user_bytes <= ID_BYTES_MAX && head->name_bytes <= NAME_BYTES_MAX &&
           head->seq >= 1 && head->zero_1 == 0 && head->zero_2 == 0 && total == size;
}

static struct slice take(const char **at, uint32_t size)
{
    const struct slice taken = {*at, size};
    *at += size;
    return taken;
}

int record_decode(const void *bytes, uint32_t size, struct record *ret)
{
    struct layout head;
    if (size < sizeof(head)) {
        return -EBADMSG;
    }
    memcpy(&head, bytes, sizeof(head));
    if (!head_is_sound(&head, size)) {
        return -EBADMSG;
    }
    const char *at = (const char *)bytes + sizeof(head);
    *ret = (struct record){
        .kind = head.kind,
        .role = head.role,
        .flags = head.flags,
        .epoch = head.epoch,
        .seq = head.seq,
        .at_ms = head.at_ms,
        .content_digest = head.content_digest,
    };
    memcpy(ret->key_digest, head.key_digest, sizeof(head.key_digest));
    ret->room_id = take(&at, head.room_bytes);
    ret->user_id = take(&at, head.user_bytes);
    ret->username = take(&at, head.name_bytes);
    ret->body = take(&at, head.body_bytes);
    return 0;
}
