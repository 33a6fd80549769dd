/* answer.c - see answer.h. Replies larger than one ring record are sent in pages. */
#include "persist/answer.h"

#include "core/check.h"
#include "persist/account.h"
#include "persist/username.h"

#include <errno.h>
#include <string.h>

enum {
    ROOM_ID_BYTES_MAX = 64,
    ROOM_NAME_BYTES_MAX = 1024,
    USER_ID_BYTES_MAX = 64,
    ROOM_NAME_GIVEN = 12,   /* characters of a room_id that we make */
    PAGE_BYTES = 64 * 1024, /* of members and keys: the shard takes them while we read on */
};

/* A reply that grows entry by entry in the answerer's page. */
struct page {
    struct answerer *answerer;
    uint32_t lane;
    struct persist_head head;
    uint32_t size;
    uint32_t size_max;
};

static void page_begin(struct page *page, struct answerer *answerer, uint32_t lane,
                       const struct persist_head *request, enum persist_op op)
{
    *page = (struct page){
        .answerer = answerer,
        .lane = lane,
        .head = {.op = (uint16_t)op, .token = request->token},
        .size = sizeof(struct persist_head),
        .size_max = answerer->ops->reply_max(answerer, lane),
    };
    if ((op == PERSIST_MEMBERS || op == PERSIST_KEYS) && page->size_max > PAGE_BYTES) {
        page->size_max = PAGE_BYTES;
    }
}

/* Space for one more entry; false: it does not fit this page. */
static bool page_add(struct page *page, uint32_t size, uint8_t **ret)
{
    if (page->size_max - page->size < size) {
        return false;
    }
    *ret = page->answerer->page + page->size;
    page->size += size;
    page->head.count++;
    return true;
}

/* Sends it; the next one is empty. What is in it says nothing if status < 0, and is left out. */
static void page_send(struct page *page, int status)
{
    struct answerer *answerer = page->answerer;

    if (status < 0) {
        page->head.count = 0;
        page->size = sizeof(struct persist_head);
    }
    page->head.status = (int16_t)status;
    memcpy(answerer->page, &page->head, sizeof(page->head));
    answerer->ops->reply(answerer, page->lane, answerer->page, page->size);
    page->head.count = 0;
    page->size = sizeof(struct persist_head);
}

/* For lists that go on over several pages: sends the one that has no more space. False: larger than
 * any. */
static bool page_add_or_send(struct page *page, uint32_t size, uint8_t **ret)
{
    if (page_add(page, size, ret)) {
        return true;
    }
    if (page->head.count > 0) {
        page_send(page, 0);
    }
    return page_add(page, size, ret);
}

static uint8_t *put(uint8_t *at, struct slice bytes)
{
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    return at + bytes.size;
}

/* The next part of a request's tail. */
static struct slice take(const char **tail, uint32_t size)
{
    const struct slice part = {*tail, size};
    *tail += size;
    return part;
}

static uint32_t aligned(uint32_t size)
{
    return (size + 7U) & ~7U;
}

/* --- rooms --- */

static uint32_t room_size(const struct store_room *room)
{
    return (uint32_t)sizeof(struct persist_room) + room->room_id.size + room->name.size;
}

/* Writes room_size bytes. */
static void put_room(uint8_t *at, struct persist_head head, const struct store_room *room)
{
    const struct persist_room reply = {
        .head = head,
        .epoch = room->epoch,
        .last_seq = room->last_seq,
        .created_ms = room->created_ms,
        .member_count = room->member_count,
        .members_max = room->members_max,
        .visibility = room->visibility,
        .durability = room->durability,
        .room_bytes = (uint8_t)room->room_id.size,
        .name_bytes = (uint16_t)room->name.size,
    };
    memcpy(at, &reply, sizeof(reply));
    (void)put(put(at + sizeof(reply), room->room_id), room->name);
}

/* The reply about one room; room NULL or status < 0: nothing but the status. Returns its size. */
static uint32_t make_room_reply(uint8_t reply[ANSWER_REPLY_MAX], uint64_t token, int status,
                                const struct store_room *room)
{
    const struct persist_head head = {
        .op = PERSIST_ROOM, .status = (int16_t)status, .token = token};
    const struct store_room none = {0};
    const struct store_room *shown = status == 0 ? room : &none;

    CHECK(room_size(shown) <= ANSWER_REPLY_MAX);
    put_room(reply, head, shown);
    return room_size(shown);
}

static int show_member(void *context, const struct store_member *member)
{
    struct page *page = context;
    const uint32_t size = 3 + member->user_id.size + member->username.size;

    uint8_t *at;

    if (member->user_id.size > UINT8_MAX || member->username.size > UINT8_MAX ||
        !page_add_or_send(page, size, &at)) {
        return -EUCLEAN; /* longer than we ever store */
    }
    at[0] = member->role;
    at[1] = (uint8_t)member->user_id.size;
    at[2] = (uint8_t)member->username.size;
    (void)put(put(at + 3, member->user_id), member->username);
    return 0;
}

static int show_key(void *context, const struct store_key *key)
{
    struct page *page = context;
    struct persist_key entry = {
        .content_digest = key->content_digest, .seq = key->seq, .at_ms = key->at_ms};

    memcpy(entry.key_digest, key->key_digest, sizeof(entry.key_digest));
    uint8_t *at;
    const bool added = page_add_or_send(page, sizeof(entry), &at);
    CHECK(added); /* a page has room for more than its head and one key */
    memcpy(at, &entry, sizeof(entry));
    return 0;
}

static int load_lists(struct answerer *answerer, uint32_t lane, const struct persist_head *head,
                      struct slice room_id)
{
    const struct store_ops *ops = answerer->store->ops;
    struct page page;

    page_begin(&page, answerer, lane, head, PERSIST_MEMBERS);
    int error = ops->members_read(answerer->store, room_id, show_member, &page);
    if (error == 0 && page.head.count > 0) {
        page_send(&page, 0);
    }
    page_begin(&page, answerer, lane, head, PERSIST_KEYS);
    if (error == 0) {
        error = ops->keys_read(answerer->store, room_id, answerer->keys_max, show_key, &page);
    }
    if (error == 0 && page.head.count > 0) {
        page_send(&page, 0);
    }
    return error;
}

static void room_load(struct answerer *answerer, uint32_t lane, const struct persist_head *head,
                      struct slice room_id)
{
    uint8_t reply[ANSWER_REPLY_MAX];
    struct store_room room = {0};
    int status = -EAGAIN;

    answerer->ops->settle(answerer);
    if (answerer->ops->is_readable(answerer)) {
        status = load_lists(answerer, lane, head, room_id);
        status =
            status == 0 ? answerer->store->ops->room_read(answerer->store, room_id, &room) : status;
    }
    const uint32_t size = make_room_reply(reply, head->token, status, &room);
    answerer->ops->reply(answerer, lane, reply, size);
}

static bool room_id_is_valid(struct slice room_id)
{
    bool valid = room_id.size >= 1 && room_id.size <= ROOM_ID_BYTES_MAX;

    for (uint32_t i = 0; valid && i < room_id.size; i++) {
        const char c = room_id.data[i];
        valid = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                c == '.' || c == '_' || c == '-';
    }
    return valid;
}

void answer_room_name(char name[12])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint64_t random;

    os_random(&random, sizeof(random));
    for (int i = 0; i < ROOM_NAME_GIVEN; i++) {
        name[i] = letters[random % 36];
        random /= 36;
    }
}

/* Writes the room: 0, -EEXIST, -EINVAL or -EAGAIN. */
static int create(struct answerer *answerer, struct store_room *room, struct slice user_id,
                  struct slice username)
{
    if (!room_id_is_valid(room->room_id) || !username_is_text(room->name, ROOM_NAME_BYTES_MAX) ||
        user_id.size == 0 || !username_is_text(user_id, USER_ID_BYTES_MAX) ||
        !username_is_text(username, USERNAME_BYTES_MAX)) {
        return -EINVAL;
    }
    if (answerer->ops->write(answerer) < 0) {
        return -EAGAIN;
    }
    if (room->epoch == 0) {
        os_random(&room->epoch, sizeof(room->epoch));
        room->epoch |= 1; /* never 0 */
    }
    room->created_ms = room->created_ms > 0 ? room->created_ms : os_wall_ms();
    const int error = answerer->store->ops->room_create(answerer->store, room, user_id, username);
    if (error < 0 && error != -EEXIST) {
        answerer->ops->refuse(answerer, error);
        return -EAGAIN;
    }
    return error;
}

static void room_create(struct answerer *answerer, uint32_t lane,
                        const struct persist_room *request, uint32_t size)
{
    const char *tail = (const char *)(request + 1);
    uint8_t reply[ANSWER_REPLY_MAX];
    char given[ROOM_NAME_GIVEN];

    CHECK(size == sizeof(*request) + request->room_bytes + request->name_bytes +
                      request->user_bytes + request->username_bytes);
    struct store_room room = {
        .epoch = request->epoch,
        .created_ms = request->created_ms,
        .member_count = 1,
        .members_max = request->members_max,
        .visibility = request->visibility,
        .durability = request->durability,
        .room_id = take(&tail, request->room_bytes),
        .name = take(&tail, request->name_bytes),
    };
    const struct slice user_id = take(&tail, request->user_bytes);
    const struct slice username = take(&tail, request->username_bytes);
    if (room.room_id.size == 0) {
        answer_room_name(given);
        room.room_id = (struct slice){given, sizeof(given)};
    }
    const int status = create(answerer, &room, user_id, username);
    const uint32_t reply_size = make_room_reply(reply, request->head.token, status, &room);
    if (status == 0) {
        answerer->ops->written(answerer, lane, reply, reply_size);
    } else {
        answerer->ops->reply_behind(answerer, lane, reply, reply_size);
    }
}

static int show_room(void *context, const struct store_room *room)
{
    struct page *page = context;
    const uint32_t size = aligned(room_size(room));
    uint8_t *at;

    if (!page_add(page, size, &at)) {
        return 1;
    }
    memset(at + size - 8, 0, 8); /* what fills up to the next multiple of 8 */
    put_room(at, (struct persist_head){0}, room);
    return 0;
}

static void room_list(struct answerer *answerer, uint32_t lane, const struct persist_list *request,
                      uint32_t size)
{
    const char *tail = (const char *)(request + 1);
    struct page page;
    int status = -EAGAIN;

    CHECK(size == sizeof(*request) + request->query_bytes + request->cursor_bytes);
    const struct slice query = take(&tail, request->query_bytes);
    const struct slice cursor = take(&tail, request->cursor_bytes);
    page_begin(&page, answerer, lane, &request->head, PERSIST_ROOMS);
    answerer->ops->settle(answerer);
    if (answerer->ops->is_readable(answerer)) {
        status = answerer->store->ops->rooms_read(answerer->store, query, cursor, request->limit,
                                                  show_room, &page);
    }
    page_send(&page, status);
}

/* --- history --- */

static int show_entry(void *context, uint64_t seq, struct slice body)
{
    struct page *page = context;
    struct answerer *answerer = page->answerer;
    const struct persist_entry entry = {.seq = seq, .body_bytes = body.size};
    const uint32_t size = (uint32_t)sizeof(entry) + aligned(body.size);

    if (page->head.count == 0 && page->size_max - page->size < size) {
        /* Larger than the page that was asked for: it is the one entry that there must be. */
        if (answerer->ops->reply_max(answerer, page->lane) - page->size < size) {
            return -EMSGSIZE;
        }
        page->size_max = page->size + size;
    }
    uint8_t *at;
    if (!page_add(page, size, &at)) {
        return 1;
    }
    memset(at + size - 8, 0, 8);
    memcpy(at, &entry, sizeof(entry));
    (void)put(at + sizeof(entry), body);
    return 0;
}

static void history(struct answerer *answerer, uint32_t lane, const struct persist_page *request,
                    uint32_t size)
{
    const char *tail = (const char *)(request + 1);
    struct page page;
    int status = -EAGAIN;

    CHECK(size == sizeof(*request) + request->room_bytes);
    const struct store_range range = {
        .room_id = take(&tail, request->room_bytes),
        .from_seq = request->from_seq,
        .to_seq = request->to_seq,
        .limit = request->limit,
        .descending = request->descending != 0,
    };
    page_begin(&page, answerer, lane, &request->head, PERSIST_HISTORY_PAGE);
    if (request->bytes_max < page.size_max) {
        page.size_max = request->bytes_max > page.size ? request->bytes_max : page.size;
    }
    if (answerer->ops->is_readable(answerer)) {
        status = answerer->store->ops->history_read(answerer->store, &range, show_entry, &page);
    }
    page_send(&page, status);
}

void answer_request(struct answerer *answerer, uint32_t lane, const void *request, uint32_t size)
{
    const struct persist_head *head = request;

    CHECK(size >= sizeof(*head));
    switch (head->op) {
    case PERSIST_ROOM_LOAD:
        room_load(answerer, lane, head,
                  (struct slice){(const char *)(head + 1), size - (uint32_t)sizeof(*head)});
        break;
    case PERSIST_ROOM_CREATE:
        CHECK(size >= sizeof(struct persist_room));
        room_create(answerer, lane, request, size);
        break;
    case PERSIST_ROOM_LIST:
        CHECK(size >= sizeof(struct persist_list));
        room_list(answerer, lane, request, size);
        break;
    case PERSIST_HISTORY:
        CHECK(size >= sizeof(struct persist_page));
        history(answerer, lane, request, size);
        break;
    case PERSIST_REGISTER:
    case PERSIST_LOGIN:
    case PERSIST_USER_ENSURE:
    case PERSIST_USER_GET:
        CHECK(size >= sizeof(struct persist_user));
        account_request(answerer, lane, request, size);
        break;
    default:
        CHECK(head->op == PERSIST_HISTORY); /* no other op is a request */
    }
}

/* --- refusals --- */

/* The op of the final reply; its struct is all there is of it. */
static enum persist_op final_op(uint16_t op, uint32_t *ret_size)
{
    switch (op) {
    case PERSIST_ROOM_LOAD:
    case PERSIST_ROOM_CREATE:
    case PERSIST_ROOM:
        *ret_size = sizeof(struct persist_room);
        return PERSIST_ROOM;
    case PERSIST_ROOM_LIST:
        *ret_size = sizeof(struct persist_head);
        return PERSIST_ROOMS;
    case PERSIST_HISTORY:
        *ret_size = sizeof(struct persist_head);
        return PERSIST_HISTORY_PAGE;
    default:
        CHECK((op >= PERSIST_REGISTER && op <= PERSIST_USER_GET) || op == PERSIST_USER); /* P4 */
        *ret_size = sizeof(struct persist_user);
        return PERSIST_USER;
    }
}

uint32_t answer_refusal(const void *request, int status, void *reply)
{
    const struct persist_head *asked = request;
    uint32_t size;

    CHECK(status < 0);
    const struct persist_head head = {
        .op = (uint16_t)final_op(asked->op, &size),
        .status = (int16_t)status,
        .token = asked->token,
    };
    memset(reply, 0, size);
    memcpy(reply, &head, sizeof(head));
    return size;
}
