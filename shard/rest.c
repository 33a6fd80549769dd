/* rest.c - see rest.h: routing, answers, the probes and the web client's files. */
#include "shard/rest.h"

#include "core/check.h"
#include "core/log.h"
#include "shard/event.h"
#include "shard/server.h"
#include "shard/session.h"
#include "shard/shard.h"
#include "shard/web_files.h"

#include <errno.h>
#include <stdio.h>

#define JSON_TYPE SLICE("application/json")

static const struct slice no_extra = {"", 0};

/* --- answers --- */

struct json_writer rest_json(struct shard *shard)
{
    return json_writer_on(shard->scratch, shard->scratch_bytes);
}

void rest_answer(struct conn *conn, uint32_t status, struct slice type, struct slice body,
                 struct slice extra)
{
    char head[2048];
    char lines[1024];
    struct json_writer writer = json_writer_on(head, sizeof(head));
    struct json_writer headers = json_writer_on(lines, sizeof(lines));

    metrics_add(&conn->shard->metrics->http_requests_total, 1);
    http_write_date(&headers, conn->shard->wall_ms / 1000);
    json_write_raw(&headers, extra);
    CHECK(!headers.overflow);
    http_write_head(&writer, status, type, body.size, json_written(&headers), conn->keep_alive);
    CHECK(!writer.overflow);
    conn_write(conn, head, writer.size);
    if (!conn->head_request && body.size > 0) {
        conn_write(conn, body.data, body.size);
    }
}

void rest_answer_json(struct conn *conn, uint32_t status, const struct json_writer *writer)
{
    CHECK(!writer->overflow); /* the scratch buffer is planned for the largest answer */
    rest_answer(conn, status, JSON_TYPE, json_written(writer),
                SLICE("Cache-Control: no-store\r\n"));
}

static void answer_error(struct conn *conn, uint32_t status, enum error_code error,
                         const char *text, struct slice extra)
{
    char body[1024];
    struct json_writer writer = json_writer_on(body, sizeof(body));
    const char *code = error_code_text(error);
    const char *words = text != NULL ? text : error_code_default(error);

    JSON_WRITE(&writer, "{\"error\":{\"code\":\"");
    json_write_raw(&writer, (struct slice){code, (uint32_t)strlen(code)});
    JSON_WRITE(&writer, "\",\"message\":");
    json_write_string(&writer, (struct slice){words, (uint32_t)strlen(words)});
    JSON_WRITE(&writer, ",\"request_id\":");
    event_write_epoch(&writer, ++conn->shard->next_session << 8 | conn->shard->index);
    JSON_WRITE(&writer, "}}");
    rest_answer(conn, status, JSON_TYPE, json_written(&writer), extra);
}

void rest_error(struct conn *conn, enum error_code error, const char *text)
{
    struct slice extra = no_extra;
    if (error == ERROR_UNAVAILABLE || error == ERROR_RATE_LIMITED) {
        extra = SLICE("Retry-After: 1\r\n");
    } else if (error == ERROR_UNAUTHORIZED || error == ERROR_TOKEN_EXPIRED) {
        extra = SLICE("WWW-Authenticate: Bearer\r\n");
    }
    answer_error(conn, error_code_status(error), error, text, extra);
}

void rest_refuse(struct conn *conn, uint32_t status)
{
    const enum error_code error = status == 413                    ? ERROR_TOO_LARGE
                                  : status == 414 || status == 431 ? ERROR_TOO_LARGE
                                                                   : ERROR_BAD_REQUEST;
    conn->keep_alive = false;
    conn->head_request = false;
    answer_error(conn, status, error, http_reason(status), no_extra);
}

/* --- for handlers --- */

struct call *rest_call(struct rest *rest, call_done done)
{
    struct call *call = call_take(rest->conn->shard, rest->conn, done);
    if (call == NULL) {
        rest_error(rest->conn, ERROR_UNAVAILABLE, NULL);
        return NULL;
    }
    conn_pause(rest->conn);
    return call;
}

bool rest_body(struct rest *rest, const struct slice *names, uint32_t count,
               struct json_value *values, uint64_t *ret_seen)
{
    struct json_reader reader;
    struct json_string key;
    struct json_value value;
    const struct slice type = rest->request->content_type;
    const bool json =
        type.size >= 16 && http_equal_nocase((struct slice){type.data, 16}, JSON_TYPE);
    int got = 0;

    *ret_seen = 0;
    if (type.data != NULL && !json) {
        answer_error(rest->conn, 415, ERROR_BAD_REQUEST, "Content-Type: application/json is needed",
                     no_extra);
        return false;
    }
    got = json_open_object(&reader, rest->body);
    for (got = got < 0 ? got : json_next_member(&reader, &key, &value); got > 0;
         got = json_next_member(&reader, &key, &value)) {
        const int field = json_key_take(&key, names, count, ret_seen);
        if (field == -EEXIST) {
            rest_error(rest->conn, ERROR_BAD_REQUEST, "a key stands there twice");
            return false;
        }
        if (field >= 0) {
            values[field] = value;
        }
    }
    if (got < 0) {
        rest_error(rest->conn, ERROR_BAD_REQUEST, json_error_text(reader.error));
    }
    return got == 0;
}

/* --- probes and files --- */

static void answer_health(struct rest *rest)
{
    rest_answer(rest->conn, 200, SLICE("text/plain; charset=utf-8"), SLICE("ok\n"), no_extra);
}

static void answer_ready(struct rest *rest)
{
    const struct shard *shard = rest->conn->shard;
    const bool broken = shard->journal != NULL && journal_state(shard->journal) == JOURNAL_FAILED;
    const bool ready = !shard->stopping && !broken;
    const struct slice words = !ready                            ? SLICE("not ready\n")
                               : persist_is_well(shard->persist) ? SLICE("ready\n")
                                                                 : SLICE("degraded\n");
    rest_answer(rest->conn, ready ? 200 : 503, SLICE("text/plain; charset=utf-8"), words, no_extra);
}

static void answer_metrics(struct rest *rest)
{
    struct shard *shard = rest->conn->shard;
    const int64_t size = server_metrics(shard->server, shard->scratch, shard->scratch_bytes);
    if (size < 0) {
        rest_error(rest->conn, ERROR_INTERNAL, NULL);
        return;
    }
    rest_answer(rest->conn, 200, SLICE("text/plain; version=0.0.4; charset=utf-8"),
                (struct slice){shard->scratch, (uint32_t)size}, no_extra);
}

static void answer_file(struct conn *conn, const struct http_request *request,
                        const struct web_file *file)
{
    char extra[768];
    const int size =
        snprintf(extra, sizeof(extra),
                 "ETag: %s\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"
                 "Referrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'none'; "
                 "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                 "base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r\n",
                 file->etag);
    const struct slice headers = {extra, (uint32_t)size};
    const struct slice etag = {file->etag, (uint32_t)strlen(file->etag)};

    CHECK(size > 0 && (size_t)size < sizeof(extra));
    if (http_list_has(request->if_none_match, etag)) {
        rest_answer(conn, 304, no_extra, no_extra, headers);
    } else {
        rest_answer(conn, 200, file->type, file->content, headers);
    }
}

/* --- upgrade --- */

static bool token_of_query(struct slice query, char *token, uint32_t *ret_size)
{
    struct slice key;
    struct slice value;
    while (http_query_next(&query, &key, &value)) {
        if (slice_equal(key, SLICE("access_token"))) {
            const int size = http_query_decode(value, token, TOKEN_MAX);
            *ret_size = size > 0 ? (uint32_t)size : 0;
            return true;
        }
    }
    return false;
}

static void answer_upgrade(struct conn *conn, struct slice key, struct slice protocols)
{
    static const struct slice known[] = {{"damso.v1", 8}};
    char accept[WS_ACCEPT_SIZE];
    char extra[256];
    char head[512];
    const bool chosen = protocols.data != NULL && ws_subprotocol(protocols, known, 1) == 0;
    struct json_writer writer = json_writer_on(head, sizeof(head));

    ws_accept(key, accept);
    const int size =
        snprintf(extra, sizeof(extra),
                 "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: %.*s\r\n%s",
                 WS_ACCEPT_SIZE, accept, chosen ? "Sec-WebSocket-Protocol: damso.v1\r\n" : "");
    CHECK(size > 0 && (size_t)size < sizeof(extra));
    http_write_head(&writer, 101, no_extra, 0, (struct slice){extra, (uint32_t)size}, true);
    CHECK(!writer.overflow);
    conn_write(conn, head, writer.size);
    metrics_add(&conn->shard->metrics->http_requests_total, 1);
    conn_upgraded(conn);
}

bool rest_upgrade(struct conn *conn, const struct http_request *request)
{
    const struct slice version = request->sec_websocket_version;
    if (request->method != HTTP_GET || !request->connection_upgrade ||
        !request->upgrade_websocket) {
        answer_error(conn, 426, ERROR_BAD_REQUEST, "this address speaks WebSocket only",
                     SLICE("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
        return false;
    }
    if (!slice_equal(version, SLICE("13"))) {
        answer_error(conn, 426, ERROR_BAD_REQUEST, "Sec-WebSocket-Version: 13 is needed",
                     SLICE("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
        return false;
    }
    if (!ws_key_valid(request->sec_websocket_key)) {
        rest_error(conn, ERROR_BAD_REQUEST, "Sec-WebSocket-Key: 16 bytes in base64 are needed");
        return false;
    }
    answer_upgrade(conn, request->sec_websocket_key, request->sec_websocket_protocol);
    return true;
}

/* --- signing in --- */

static void ensured(struct shard *shard, struct conn *conn, struct call *call,
                    const struct call_answer *answer)
{
    const enum error_code error = session_ensured(shard, answer);
    call_give(shard, call);
    if (conn == NULL) {
        return;
    }
    if (error != ERROR_NONE) {
        conn->keep_alive = false; /* the request itself still stands in the input */
        rest_error(conn, error, NULL);
        conn_resume(conn);
    } else {
        conn_retry(conn);
    }
}

/* 1: rest->user is set; 0: paused, the request comes again; -1: answered. */
static int sign_in(struct rest *rest)
{
    struct conn *conn = rest->conn;
    struct shard *shard = conn->shard;
    struct auth_claims claims;
    struct slice token;

    if (http_bearer(rest->request->authorization, &token) < 0) {
        rest_error(conn, ERROR_UNAUTHORIZED, "Authorization: Bearer <access token> is needed");
        return -1;
    }
    const enum auth_result result = auth_check(shard->auth, token, shard->wall_ms / 1000, &claims);
    if (result != AUTH_OK) {
        rest_error(conn, result == AUTH_EXPIRED ? ERROR_TOKEN_EXPIRED : ERROR_UNAUTHORIZED,
                   result == AUTH_EXPIRED ? NULL : "this is no token of ours");
        return -1;
    }
    rest->user = user_take(shard, (struct slice){claims.sub, claims.sub_size},
                           (struct slice){claims.name, claims.name_size});
    if (rest->user != NULL && rest->user->known) {
        return 1;
    }
    const bool asked =
        rest->user != NULL && session_ensure_user(conn, rest->user, ensured, no_extra);
    if (rest->user != NULL) {
        user_give(shard, rest->user);
    }
    if (!asked) {
        rest_error(conn, ERROR_UNAVAILABLE, NULL);
        return -1;
    }
    conn_pause(conn);
    return 0;
}

/* --- routing --- */

static const struct route own_routes[] = {
    {HTTP_GET, "/healthz", true, answer_health},
    {HTTP_GET, "/readyz", true, answer_ready},
    {HTTP_GET, "/metrics", true, answer_metrics},
};

/* Whether the path fits; a wildcard's segment is decoded into text. */
static bool fits(const char *pattern, struct slice path, struct rest *rest, char *text,
                 uint32_t capacity)
{
    struct slice want = {pattern, (uint32_t)strlen(pattern)};
    struct slice wanted;
    struct slice got;
    uint32_t used = 0;

    for (uint32_t i = 0; http_path_next(&want, &wanted); i++) {
        if (!http_path_next(&path, &got) || i == ROUTE_SEGMENTS_MAX) {
            return false;
        }
        if (!slice_equal(wanted, SLICE(":"))) {
            if (!slice_equal(wanted, got)) {
                return false;
            }
            continue;
        }
        const int size = http_segment_decode(got, text + used, capacity - used);
        if (size <= 0) {
            return false;
        }
        rest->segments[i] = (struct slice){text + used, (uint32_t)size};
        used += (uint32_t)size;
    }
    return !http_path_next(&path, &got);
}

struct search {
    const struct route *found;
    uint32_t allowed; /* bits of enum http_method that the path has */
};

static void look_in(const struct route *routes, uint32_t count, struct rest *rest, char *text,
                    uint32_t capacity, struct search *search)
{
    enum http_method method = rest->request->method;
    method = method == HTTP_HEAD ? HTTP_GET : method;
    for (uint32_t i = 0; i < count && search->found == NULL; i++) {
        if (fits(routes[i].path, rest->request->path, rest, text, capacity)) {
            search->allowed |= 1U << routes[i].method;
            search->found = routes[i].method == method ? &routes[i] : NULL;
        }
    }
}

static void refuse_method(struct conn *conn, uint32_t allowed)
{
    char extra[96] = "Allow: ";
    struct json_writer writer = json_writer_on(extra, sizeof(extra));
    JSON_WRITE(&writer, "Allow: ");
    for (uint32_t method = HTTP_GET; method <= HTTP_OPTIONS; method++) {
        if ((allowed >> method & 1) != 0) {
            const char *name = http_method_name((enum http_method)method);
            json_write_raw(&writer, writer.size > 7 ? SLICE(", ") : no_extra);
            json_write_raw(&writer, (struct slice){name, (uint32_t)strlen(name)});
            json_write_raw(&writer, method == HTTP_GET ? SLICE(", HEAD") : no_extra);
        }
    }
    JSON_WRITE(&writer, "\r\n");
    answer_error(conn, 405, ERROR_BAD_REQUEST, "this address does not take that method",
                 json_written(&writer));
}

static void upgrade(struct conn *conn, const struct http_request *request)
{
    char text[TOKEN_MAX];
    struct slice token = {text, 0};

    if (request->method != HTTP_GET) {
        refuse_method(conn, 1U << HTTP_GET);
        return;
    }
    if (!rest_upgrade(conn, request) || conn->state != CONN_WEBSOCKET) {
        return;
    }
    if (http_bearer(request->authorization, &token) == 0 ||
        token_of_query(request->query, text, &token.size)) {
        session_connect(conn, token, no_extra);
    }
}

static bool dispatch(struct rest *rest, const struct route *route)
{
    if (!route->open) {
        const int signed_in = sign_in(rest);
        if (signed_in <= 0) {
            return signed_in < 0;
        }
    }
    route->handle(rest);
    if (rest->user != NULL) {
        user_give(rest->conn->shard, rest->user);
    }
    return true;
}

bool rest_request(struct conn *conn, const struct http_request *request, struct slice body)
{
    char text[512];
    struct rest rest = {.conn = conn, .request = request, .body = body};
    struct search search = {NULL, 0};

    if (slice_equal(request->path, SLICE("/v1/ws"))) {
        upgrade(conn, request);
        return true;
    }
    look_in(rest_room_routes, rest_room_route_count, &rest, text, sizeof(text), &search);
    look_in(rest_auth_routes, rest_auth_route_count, &rest, text, sizeof(text), &search);
    look_in(own_routes, sizeof(own_routes) / sizeof(own_routes[0]), &rest, text, sizeof(text),
            &search);
    if (search.found != NULL) {
        return dispatch(&rest, search.found);
    }
    const struct web_file *file = web_files_find(conn->shard->web, request->path);
    if (file != NULL && (request->method == HTTP_GET || request->method == HTTP_HEAD)) {
        answer_file(conn, request, file);
    } else if (search.allowed != 0 || file != NULL) {
        refuse_method(conn, file != NULL ? 1U << HTTP_GET : search.allowed);
    } else {
        rest_error(conn, ERROR_NOT_FOUND, NULL);
    }
    return true;
}
