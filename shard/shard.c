/* shard.c - a shard's memory and ring, before its thread starts. */
#include "shard/shard.h"

#include "core/check.h"
#include "core/log.h"

enum { SPARE_SLOTS = 64 }; /* for connections that are being refused or are closing */

/* As many connections as are configured, or as there may be descriptors. */
static uint32_t connections_of(const struct config *config)
{
    const uint32_t files = os_files_max();
    const uint32_t possible = files > 2 * SPARE_SLOTS ? files - SPARE_SLOTS : SPARE_SLOTS;
    const uint32_t wanted = (uint32_t)config->limits_connections;
    if (wanted > possible) {
        log_warning(
            "limits.connections=%u is more than the limit of open files allows: %u a shard; "
            "raise it (systemd: LimitNOFILE=, shell: ulimit -n)",
            wanted, possible);
    }
    return wanted < possible ? wanted : possible;
}

static void plan_buffers(struct shard *shard)
{
    const struct config *config = shard->config;
    const uint32_t page = (uint32_t)config->limits_history_bytes;

    /* The largest answers: a page of history with its words, the text of /metrics, a list of rooms.
     */
    shard->page_bytes = page + (uint32_t)config->limits_frame_bytes * 2;
    shard->scratch_bytes = 2 * shard->page_bytes + METRICS_TEXT_MAX;
    shard->page = mem_reserve(&shard->plan, "page of history", shard->page_bytes, 1);
    shard->scratch = mem_reserve(&shard->plan, "answer being built", shard->scratch_bytes, 1);
    shard->wheel = mem_reserve(&shard->plan, "timer wheel", sizeof(*shard->wheel), 1);
    shard->metrics = mem_reserve(&shard->plan, "metrics", sizeof(*shard->metrics), 1);
}

void shard_plan(struct shard *shard, const struct config *config, uint32_t index, uint32_t count,
                enum mem_mode mode)
{
    CHECK(index < count && count <= SHARDS_MAX);
    *shard = (struct shard){.index = index, .count = count, .config = config, .listener = -1};
    mem_init(&shard->plan, "shard", mode);
    doorbell_init(&shard->bell);
    os_random(&shard->hash_key, sizeof(shard->hash_key));
    os_random(&shard->next_session, 4);

    shard->connections_max = connections_of(config);
    conn_init(shard);
    call_init(shard);
    user_init(shard);
    key_init(shard);
    room_init(shard);
    plan_buffers(shard);
}

int shard_open(struct shard *shard, char *ret_why, size_t why_size)
{
    const struct config *config = shard->config;
    const struct os_ring_options options = {
        .entries = (uint32_t)config->uring_entries,
        .completions = (uint32_t)config->uring_completions,
        .sockets = shard->connections_max + SPARE_SLOTS,
        .recv_buffers = (uint32_t)config->uring_recv_buffers,
        .recv_buffer_bytes = (uint32_t)config->uring_recv_buffer_bytes,
    };
    return os_ring_create(&options, &shard->ring, ret_why, why_size);
}
