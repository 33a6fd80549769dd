/* client.c - see client.h for the states and the invariants L1 and L2 named below. */
#include "bench/client.h"

#include "bench/reserve.h"
#include "core/check.h"

#include <errno.h>
#include <stdarg.h>

enum { JOIN_ID = 1, LEAVE_ID = 2 };

static size_t template_bytes(const struct clients *clients)
{
    return 256 + (size_t)clients->checker.text_size;
}

static void template_init(struct clients *clients, uint32_t room)
{
    struct client_template *const template = &clients->templates[room];
    const struct checker *const checker = &clients->checker;
    const int head = snprintf(template->bytes, template_bytes(clients),
                              "{\"type\":\"send\",\"id\":%d,\"room_id\":\"%s\",\"text\":\"",
                              CLIENT_ID_BASE, checker->rooms[room].id);

    CHECK(head > 0);
    template->id_at = sizeof("{\"type\":\"send\",\"id\":") - 1;
    template->text_at = (uint32_t)head;
    template->size = (uint32_t)head + checker->text_size + 2;
    memcpy(template->bytes + template->size - 2, "\"}", 2);
}

static void room_init(struct clients *clients, const struct clients_plan *plan, uint32_t index)
{
    struct checker_room *const room = &clients->checker.rooms[index];
    const int size = snprintf(room->id, sizeof(room->id), "%s-%u", plan->room_prefix, index);

    CHECK(size > 0 && (size_t)size < sizeof(room->id));
    room->id_size = (uint32_t)size;
    room->members = 0;
    if (plan->join && !plan->leave_after_join) {
        room->members = plan->count / plan->rooms + (index < plan->count % plan->rooms);
    }
    template_init(clients, index);
}

/* User ids that pushed messages must carry, written once for all. */
static void sender_init(struct clients *clients, uint32_t index, char *name)
{
    const int size = snprintf(name, 16, "bench-%u", index);

    CHECK(size > 0 && size < 16);
    clients->checker.senders[index].user_id = (struct slice){name, (uint32_t)size};
}

static int reserve_clients(struct clients *clients)
{
    const size_t count = clients->count;

    clients->all = reserve_zeroed(count * sizeof(struct client));
    clients->tokens = reserve_zeroed(count * (CLIENT_TOKEN_BYTES + 16));
    clients->areas = reserve_zeroed(count * (CLIENT_INPUT_BYTES + CLIENT_OUTPUT_BYTES));
    clients->templates = reserve_zeroed(clients->room_count *
                                        (sizeof(struct client_template) + template_bytes(clients)));
    return clients->all == NULL || clients->tokens == NULL || clients->areas == NULL ||
                   clients->templates == NULL
               ? -ENOMEM
               : 0;
}

int clients_init(struct clients *clients, const struct clients_plan *plan)
{
    CHECK(plan->rooms > 0);
    CHECK(plan->limits.senders == plan->count);
    CHECK(plan->limits.rooms == plan->rooms);

    memset(clients, 0, sizeof(*clients));
    clients->count = plan->count;
    clients->room_count = plan->rooms;
    clients->join = plan->join;
    clients->leave_after_join = plan->leave_after_join;
    clients->mask_state = 0x9e3779b9;
    histogram_init(&clients->connect_latency);
    (void)snprintf(clients->host, sizeof(clients->host), "%s", plan->host);
    int result = checker_init(&clients->checker, &plan->limits);
    if (result == 0) {
        result = reserve_clients(clients);
    }
    if (result < 0) {
        clients_free(clients);
        return result;
    }
    char *const bytes = (char *)(clients->templates + plan->rooms);
    for (uint32_t i = 0; i < plan->rooms; i++) {
        clients->templates[i].bytes = bytes + i * template_bytes(clients);
        room_init(clients, plan, i);
    }
    for (uint32_t i = 0; i < plan->count; i++) {
        uint8_t *const area =
            clients->areas + i * (size_t)(CLIENT_INPUT_BYTES + CLIENT_OUTPUT_BYTES);
        clients->all[i] = (struct client){.fd = -1,
                                          .index = i,
                                          .room = i % plan->rooms,
                                          .input = area,
                                          .output = area + CLIENT_INPUT_BYTES};
        sender_init(clients, i,
                    clients->tokens + (size_t)plan->count * CLIENT_TOKEN_BYTES + i * 16UL);
    }
    return 0;
}

void clients_free(struct clients *clients)
{
    const size_t count = clients->count;

    reserve_release(clients->all, count * sizeof(struct client));
    reserve_release(clients->tokens, count * (CLIENT_TOKEN_BYTES + 16));
    reserve_release(clients->areas, count * (CLIENT_INPUT_BYTES + CLIENT_OUTPUT_BYTES));
    reserve_release(clients->templates, clients->room_count * (sizeof(struct client_template) +
                                                               template_bytes(clients)));
    checker_free(&clients->checker);
    memset(clients, 0, sizeof(*clients));
}

void clients_problem(struct clients *clients, const char *format, ...)
{
    va_list arguments;

    if (clients->problem[0] != '\0') {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(clients->problem, sizeof(clients->problem), format, arguments);
    va_end(arguments);
}

static void enter(struct clients *clients, struct client *client, enum client_state state)
{
    clients->live -= client->state == CLIENT_LIVE; /* L2 */
    clients->live += state == CLIENT_LIVE;
    clients->closed -= client->state == CLIENT_CLOSED;
    clients->closed += state == CLIENT_CLOSED;
    client->state = state;
}

void client_start(struct clients *clients, struct client *client, int fd, uint64_t now_ns)
{
    CHECK(client->state == CLIENT_IDLE || client->state == CLIENT_CLOSED);

    client->fd = fd;
    client->input_size = 0;
    client->output_sent = 0;
    client->blocked = false;
    client->started_ns = now_ns;
    client->member = (struct checker_member){0};
    const int size = wsclient_request((char *)client->output, CLIENT_OUTPUT_BYTES, clients->host,
                                      clients->tokens + (size_t)client->index * CLIENT_TOKEN_BYTES);
    CHECK(size > 0);
    client->output_end = (uint32_t)size;
    enter(clients, client, CLIENT_UPGRADING);
}

void client_close(struct clients *clients, struct client *client)
{
    client->output_sent = client->output_end = 0;
    enter(clients, client, CLIENT_CLOSED);
}

/* xorshift32 (Marsaglia, 2003): masks need to differ, not to be secret here. */
static uint32_t next_mask(struct clients *clients)
{
    uint32_t x = clients->mask_state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    clients->mask_state = x;
    return x;
}

/* False, with nothing queued, if the output has no room for it. */
static bool queue_frame(struct clients *clients, struct client *client, uint8_t opcode,
                        struct slice payload)
{
    if (client->output_sent == client->output_end) {
        client->output_sent = client->output_end = 0;
    }
    if (payload.size > WSCLIENT_PAYLOAD_MAX ||
        client->output_end + payload.size + WSCLIENT_HEAD_MAX > CLIENT_OUTPUT_BYTES) {
        return false;
    }
    client->output_end += (uint32_t)wsclient_encode(client->output + client->output_end, opcode,
                                                    payload, next_mask(clients));
    return true;
}

static int queue_request(struct clients *clients, struct client *client, const char *type, int id)
{
    char request[192];
    const int size =
        snprintf(request, sizeof(request), "{\"type\":\"%s\",\"id\":%d,\"room_id\":\"%s\"}", type,
                 id, clients->checker.rooms[client->room].id);

    CHECK(size > 0 && (size_t)size < sizeof(request));
    return queue_frame(clients, client, WSCLIENT_TEXT, (struct slice){request, (uint32_t)size})
               ? 0
               : -EPROTO;
}

static void put_digits(char *dst, uint32_t value)
{
    for (int i = 9; i >= 0; i--) {
        dst[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

bool client_send(struct clients *clients, struct client *client, uint64_t intended_ns)
{
    struct checker *const checker = &clients->checker;
    const struct client_template *const template = &clients->templates[client->room];

    if (client->output_sent == client->output_end) {
        client->output_sent = client->output_end = 0;
    }
    if (client->state != CLIENT_LIVE ||
        client->output_end + template->size + WSCLIENT_HEAD_MAX > CLIENT_OUTPUT_BYTES) {
        return false;
    }
    const int32_t message =
        checker_send(checker, &checker->rooms[client->room], client->index, intended_ns);
    if (message == CHECKER_NONE) {
        return false;
    }
    put_digits(template->bytes + template->id_at, CLIENT_ID_BASE + (uint32_t)message);
    checker_text(checker, message, template->bytes + template->text_at);
    const bool queued = queue_frame(clients, client, WSCLIENT_TEXT,
                                    (struct slice){template->bytes, template->size});
    CHECK(queued); /* its room was looked at above */
    return true;
}

static int take_connected(struct clients *clients, struct client *client, uint64_t now_ns)
{
    if (client->state != CLIENT_OPEN) {
        clients_problem(clients, "client %u: a second `connected`", client->index);
        return -EPROTO;
    }
    clients->connected++;
    histogram_record(&clients->connect_latency, now_ns - client->started_ns, 1);
    if (!clients->join) {
        enter(clients, client, CLIENT_LIVE);
        return 0;
    }
    enter(clients, client, CLIENT_JOINING);
    return queue_request(clients, client, "join", JOIN_ID);
}

static int take_joined(struct clients *clients, struct client *client, const struct fields *fields)
{
    if (client->state != CLIENT_JOINING || (fields->present & FIELDS_SEQ) == 0) {
        clients_problem(clients, "client %u: `joined` unasked or without seq", client->index);
        return -EPROTO;
    }
    if (clients->leave_after_join) {
        enter(clients, client, CLIENT_LEAVING);
        return queue_request(clients, client, "leave", LEAVE_ID);
    }
    checker_join(&client->member, &clients->checker.rooms[client->room], fields->seq);
    enter(clients, client, CLIENT_LIVE);
    return 0;
}

static int take_error(struct clients *clients, struct client *client, const struct fields *fields)
{
    clients_problem(clients, "client %u: error %.*s: %.*s", client->index, (int)fields->code.size,
                    fields->code.data,
                    (int)(fields->message.size < 120 ? fields->message.size : 120),
                    fields->message.data);
    if (client->state != CLIENT_LIVE) {
        return -EPROTO; /* set-up cannot go on */
    }
    if ((fields->present & FIELDS_ID) != 0 && fields->id >= CLIENT_ID_BASE) {
        checker_refused(&clients->checker, (int64_t)fields->id - CLIENT_ID_BASE);
    } else {
        clients->checker.counts.foreign++;
    }
    return 0;
}

static bool is_event(struct slice type)
{
    return FIELDS_IS(type, "message") || FIELDS_IS(type, "member") || FIELDS_IS(type, "edited") ||
           FIELDS_IS(type, "deleted");
}

static int take_text(struct clients *clients, struct client *client, struct slice frame,
                     struct slice payload, uint64_t now_ns)
{
    struct checker *const checker = &clients->checker;
    struct fields fields;

    if (fields_scan(payload.data, payload.size, &fields) < 0) {
        clients_problem(clients, "client %u: not JSON: %.*s", client->index,
                        (int)(payload.size < 120 ? payload.size : 120), payload.data);
        checker->counts.foreign++;
        return 0;
    }
    if (FIELDS_IS(fields.type, "ack")) {
        checker_ack(checker, (int64_t)fields.id - CLIENT_ID_BASE, &fields, now_ns);
    } else if (is_event(fields.type)) {
        /* Between `leave` and its answer events may still come; nobody counts on them. */
        if (!clients->leave_after_join) {
            checker_event(checker, &client->member, frame, &fields, now_ns);
        }
    } else if (FIELDS_IS(fields.type, "gap")) {
        clients_problem(clients, "client %u: a gap was announced", client->index);
        checker_gap(checker, &client->member, &fields);
    } else if (FIELDS_IS(fields.type, "connected")) {
        return take_connected(clients, client, now_ns);
    } else if (FIELDS_IS(fields.type, "joined")) {
        return take_joined(clients, client, &fields);
    } else if (FIELDS_IS(fields.type, "left") && client->state == CLIENT_LEAVING) {
        enter(clients, client, CLIENT_LIVE);
    } else if (FIELDS_IS(fields.type, "error")) {
        return take_error(clients, client, &fields);
    }
    return 0; /* presence, typing and what a later server may add */
}

static int take_close(struct clients *clients, const struct client *client, struct slice payload)
{
    const unsigned char *const bytes = (const unsigned char *)payload.data;
    const int code = payload.size < 2 ? 0 : bytes[0] << 8 | bytes[1];

    clients_problem(clients, "client %u: the server closed with %d %.*s", client->index, code,
                    payload.size < 2 ? 0 : (int)payload.size - 2, payload.data + 2);
    return -EPROTO;
}

/* One frame that is not simply the next one of the room. */
static int64_t take_frame(struct clients *clients, struct client *client, const uint8_t *data,
                          size_t size, uint64_t now_ns)
{
    struct wsclient_frame frame;
    size_t need = 0;
    const int used = wsclient_decode(data, size, &frame, &need);
    int result = 0;

    if (used < 0 || need > CLIENT_INPUT_BYTES) {
        clients_problem(clients, "client %u: a frame that the server may not send", client->index);
        return -EPROTO;
    }
    if (used == 0) {
        return 0;
    }
    if (frame.opcode == WSCLIENT_TEXT) {
        const struct slice whole = {(const char *)data, (uint32_t)used};
        result = take_text(clients, client, whole, frame.payload, now_ns);
    } else if (frame.opcode == WSCLIENT_PING) {
        (void)queue_frame(clients, client, WSCLIENT_PONG, frame.payload);
    } else if (frame.opcode == WSCLIENT_CLOSE) {
        result = take_close(clients, client, frame.payload);
    }
    return result < 0 ? result : used;
}

static int64_t take_response(struct clients *clients, struct client *client, const uint8_t *data,
                             size_t size)
{
    int status = 0;
    const int used = wsclient_response((const char *)data, size, &status);

    if (used < 0) {
        clients_problem(clients, "client %u: upgrade answered with %d", client->index, status);
    } else if (used > 0) {
        enter(clients, client, CLIENT_OPEN);
    }
    return used;
}

int64_t client_input(struct clients *clients, struct client *client, const uint8_t *data,
                     size_t size, uint64_t now_ns)
{
    size_t used = 0;
    int64_t step = 1;

    while (used < size && step > 0) {
        if (client->state == CLIENT_UPGRADING) {
            step = take_response(clients, client, data + used, size - used);
        } else {
            used +=
                checker_match(&clients->checker, &client->member, data + used, size - used, now_ns);
            step = take_frame(clients, client, data + used, size - used, now_ns);
        }
        used += step > 0 ? (size_t)step : 0;
    }
    return step < 0 ? step : (int64_t)used;
}
