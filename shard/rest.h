/*
 * rest.h - the REST half of the protocol: HTTP requests become requests to rooms and to the store.
 *
 * Walk:       from shard/conn_input.c (rest_request); to shard/rest_auth.c and shard/rest_rooms.c,
 *             each a table of routes; answers come back through shard/call.c.
 * Threads:    its shard's.
 */
#pragma once

#include "core/http.h"
#include "core/json.h"
#include "shard/call.h"
#include "shard/conn.h"
#include "shard/room.h"
#include "shard/user.h"

#include <stdbool.h>
#include <stdint.h>

/* The WebSocket handshake: true when the connection speaks it now, else the refusal is written. */
bool rest_upgrade(struct conn *conn, const struct http_request *request);

/* One request; false: paused, it is to come again (struct service). */
bool rest_request(struct conn *conn, const struct http_request *request, struct slice body);

/* A request that HTTP itself refuses: a status and an error body; the connection closes afterwards.
 */
void rest_refuse(struct conn *conn, uint32_t status);

/* --- for rest_auth.c and rest_rooms.c --- */

enum { ROUTE_SEGMENTS_MAX = 5 };

/* A request on its way through a handler. */
struct rest {
    struct conn *conn;
    const struct http_request *request;
    struct slice body;
    struct user
        *user; /* signed in, held while the handler runs; NULL where no sign-in is asked for */
    struct slice
        segments[ROUTE_SEGMENTS_MAX]; /* of the path, decoded where the route has a wildcard */
};

struct route {
    enum http_method method;
    const char *path; /* "/v1/rooms/:/join": a colon stands for one segment */
    bool open;        /* no sign-in needed */
    void (*handle)(struct rest *rest);
};

extern const struct route rest_auth_routes[];
extern const uint32_t rest_auth_route_count;
extern const struct route rest_room_routes[];
extern const uint32_t rest_room_route_count;

/* Answers: JSON written in the scratch buffer by rest_json, or an error; the connection goes on
 * with its next request. */
struct json_writer rest_json(struct shard *shard);
void rest_answer(struct conn *conn, uint32_t status, struct slice type, struct slice body,
                 struct slice extra);
void rest_answer_json(struct conn *conn, uint32_t status, const struct json_writer *writer);
void rest_error(struct conn *conn, enum error_code error, const char *text);

/* A call whose done answers; the connection is paused until then. NULL: answered with unavailable.
 */
struct call *rest_call(struct rest *rest, call_done done);

/* The body as a JSON object: reads members named in names into values and tells which were there.
 * False: answered. */
bool rest_body(struct rest *rest, const struct slice *names, uint32_t count,
               struct json_value *values, uint64_t *ret_seen);
