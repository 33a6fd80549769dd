/* call.c - see call.h. */
#include "shard/call.h"

#include "core/check.h"
#include "shard/shard.h"

enum { CONN_SHARE = 8 };

void call_init(struct shard *shard)
{
    pool_init(&shard->calls, &shard->plan, "requests", sizeof(struct call),
              (uint32_t)shard->config->limits_requests);
}

/* One connection may have so many calls in flight: the others want some too. */
static bool takes_too_many(const struct shard *shard, const struct conn *conn)
{
    return conn != NULL && conn->calls >= shard->calls.capacity / CONN_SHARE;
}

struct call *call_take(struct shard *shard, struct conn *conn, call_done done)
{
    struct call *call = takes_too_many(shard, conn) ? NULL : pool_take(&shard->calls);
    if (call == NULL) {
        shard_exhausted(&shard->metrics->pool_exhausted_total_requests);
        return NULL;
    }
    const uint32_t generation = call->generation;
    memset(call, 0, offsetof(struct call, id));
    call->generation =
        generation > 0 ? generation : 1; /* so that no token is 0, which means none */
    call->conn = conn != NULL ? conn_ref_of(conn, pool_index(&shard->conns, conn))
                              : (struct conn_ref){POOL_NONE, 0};
    call->done = done;
    if (conn != NULL) {
        conn->calls++;
    }
    return call;
}

uint64_t call_token(struct shard *shard, const struct call *call)
{
    return os_tag((uint8_t)shard->index, call->generation, pool_index(&shard->calls, call));
}

void call_give(struct shard *shard, struct call *call)
{
    if (pool_taken(&shard->conns, call->conn.index)) {
        struct conn *conn = pool_at(&shard->conns, call->conn.index);
        if (conn->generation == call->conn.generation) { /* closing too, but no stranger's */
            CHECK(conn->calls > 0);
            conn->calls--;
        }
    }
    call->generation = (call->generation + 1) & 0xffffff;
    pool_give(&shard->calls, call);
}

void call_answered(struct shard *shard, uint64_t token, const struct call_answer *answer)
{
    const uint32_t index = os_tag_index(token);
    CHECK(os_tag_kind(token) == shard->index);
    CHECK(pool_taken(&shard->calls, index)); /* R4, P4: one answer a token */
    struct call *call = pool_at(&shard->calls, index);
    CHECK(call->generation == os_tag_generation(token));

    struct conn *conn = conn_find(shard, call->conn);
    call->done(shard, conn, call, answer);
}

bool call_store(struct shard *shard, uint64_t token, const void *request, uint32_t request_size,
                const struct slice *tails, uint32_t tail_count)
{
    uint32_t size = request_size;
    for (uint32_t i = 0; i < tail_count; i++) {
        size += tails[i].size;
    }
    char *at = spsc_reserve(&shard->lane->requests, size);
    if (at == NULL) {
        return false;
    }
    struct persist_head head;
    memcpy(&head, request, sizeof(head));
    head.token = token;
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), (const char *)request + sizeof(head), request_size - sizeof(head));
    at += request_size;
    for (uint32_t i = 0; i < tail_count; i++) {
        if (tails[i].size > 0) {
            memcpy(at, tails[i].data, tails[i].size);
            at += tails[i].size;
        }
    }
    spsc_commit(&shard->lane->requests, size);
    shard->handover.asked = true;
    return true;
}
