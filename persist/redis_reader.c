/* redis_reader.c - see redis_reader.h for R3, and redis.h. */
#include "persist/redis_reader.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <string.h>
#include <sys/mman.h>

enum {
    KEPT_BYTES = 1024 * 1024,   /* memory that stays after a large reply, here and in hiredis */
    LINE_BYTES_MAX = 64 * 1024, /* Redis' own are far shorter */
};

/* --- what hiredis calls --- */

static void *arena_take(struct redis_reader *reader, size_t size)
{
    const size_t rounded = (size + 7) & ~(size_t)7;

    if (rounded > REDIS_ARENA_BYTES - reader->used) {
        return NULL; /* hiredis then gives up (R3) */
    }
    void *piece = reader->arena + reader->used;
    reader->used += rounded;
    return piece;
}

static void arena_empty(struct redis_reader *reader)
{
    reader->touched = reader->used > reader->touched ? reader->used : reader->touched;
    reader->used = 0;
    if (reader->touched > 4 * (size_t)KEPT_BYTES) {
        (void)madvise(reader->arena + KEPT_BYTES, REDIS_ARENA_BYTES - KEPT_BYTES, MADV_DONTNEED);
        reader->touched = 0;
    }
}

/* The place of a new object: in its array, or by itself. */
static struct redis_reply *object_make(const redisReadTask *task, enum redis_type type)
{
    struct redis_reader *reader = task->privdata;
    struct redis_reply *reply =
        task->parent != NULL
            ? (struct redis_reply *)((struct redis_reply *)task->parent->obj)->element + task->idx
            : arena_take(reader, sizeof(*reply));

    if (reply != NULL) {
        *reply = (struct redis_reply){.type = type};
    }
    return reply;
}

static void *make_string(const redisReadTask *task, char *text, size_t size)
{
    struct redis_reader *reader = task->privdata;
    const enum redis_type type = task->type == REDIS_REPLY_ERROR    ? REDIS_ERROR
                                 : task->type == REDIS_REPLY_STATUS ? REDIS_STATUS
                                                                    : REDIS_STRING;
    struct redis_reply *reply = object_make(task, type);
    char *copy = arena_take(reader, size); /* text moves as more bytes come */

    if (reply == NULL || copy == NULL) {
        return NULL;
    }
    memcpy(copy, text, size);
    reply->text = (struct slice){copy, (uint32_t)size}; /* at most ARENA_BYTES */
    return reply;
}

static void *make_array(const redisReadTask *task, int count)
{
    struct redis_reader *reader = task->privdata;

    if (count < 0 || count > REDIS_ELEMENTS_MAX) {
        return NULL;
    }
    struct redis_reply *elements = arena_take(reader, (size_t)count * sizeof(*elements));
    struct redis_reply *reply = elements == NULL ? NULL : object_make(task, REDIS_ARRAY);
    if (reply != NULL) {
        reply->count = (uint32_t)count;
        reply->element = elements;
    }
    return reply;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    struct redis_reply *reply = object_make(task, REDIS_INTEGER);
    if (reply != NULL) {
        reply->integer = value;
    }
    return reply;
}

static void *make_nil(const redisReadTask *task)
{
    return object_make(task, REDIS_NIL);
}

static void forget_object(void *object)
{
    (void)object; /* the arena is emptied as a whole */
}

static redisReplyObjectFunctions objects = {make_string, make_array, make_integer, make_nil,
                                            forget_object};

/* --- what persist/redis.c calls --- */

int redis_reader_begin(struct redis_reader *reader)
{
    redis_reader_end(reader);
    reader->reader = redisReaderCreateWithFunctions(&objects);
    if (reader->reader == NULL) {
        return -ENOMEM;
    }
    reader->reader->privdata = reader;
    reader->reader->maxbuf = KEPT_BYTES;
    reader->fed = 0;
    return 0;
}

void redis_reader_end(struct redis_reader *reader)
{
    if (reader->reader != NULL) {
        redisReaderFree(reader->reader);
        reader->reader = NULL;
    }
}

int redis_reader_feed(struct redis_reader *reader, const char *bytes, size_t size)
{
    reader->fed += size;
    if (reader->fed > REDIS_REPLY_BYTES_MAX) {
        return -EMSGSIZE;
    }
    return redisReaderFeed(reader->reader, bytes, size) == REDIS_OK ? 0 : -ENOMEM;
}

/* Whether what is there begins with a line that does not end. hiredis would look through all of it
 * again whenever more comes. */
static bool is_endless_line(const struct redis_reader *reader)
{
    const size_t pos = reader->reader->pos;

    return reader->reader->len - pos > LINE_BYTES_MAX &&
           memchr(reader->reader->buf + pos, '\n', LINE_BYTES_MAX) == NULL;
}

int redis_reader_take(struct redis_reader *reader, struct redis_reply *ret)
{
    void *object = NULL;

    if (reader->reader->reply == NULL) { /* else a reply is there in part */
        arena_empty(reader);
    }
    if (redisReaderGetReply(reader->reader, &object) != REDIS_OK) {
        return reader->reader->err == REDIS_ERR_OOM ? -EMSGSIZE : -EPROTO;
    }
    if (object == NULL) {
        return is_endless_line(reader) ? -EMSGSIZE : 0;
    }
    reader->fed = reader->reader->len - reader->reader->pos;
    *ret = *(const struct redis_reply *)object;
    return 1;
}

struct redis_reply redis_element(const struct redis_reply *reply, uint32_t index)
{
    CHECK(reply->type == REDIS_ARRAY);
    CHECK(index < reply->count);
    return ((const struct redis_reply *)reply->element)[index];
}
