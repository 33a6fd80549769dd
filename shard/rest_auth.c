/* rest_auth.c - /v1/auth: sign-up and sign-in by password. Hashing happens in persist/, never on a
 * shard. */
#include "core/check.h"
#include "shard/auth.h"
#include "shard/event.h"
#include "shard/rest.h"
#include "shard/shard.h"

#include <errno.h>

enum {
    PASSWORD_BYTES_MIN = 8,
    PASSWORD_BYTES_MAX = 1024,
    NAME_CHARACTERS_MIN = 2,
    NAME_CHARACTERS_MAX = 32
};

enum { FIELD_USERNAME, FIELD_PASSWORD, FIELD_DISPLAY_NAME, FIELDS };

static const struct slice field_names[FIELDS] = {
    {"username", 8}, {"password", 8}, {"display_name", 12}};

/* Who signed in, with a token. */
static void answer_signed_in(struct shard *shard, struct conn *conn, uint32_t status,
                             const struct persist_user *reply)
{
    const char *tail = (const char *)(reply + 1);
    const struct slice id = {tail, reply->user_bytes};
    const struct slice name = {tail + id.size, reply->username_bytes};
    char token[TOKEN_MAX];
    const int size = auth_sign(shard->auth, id, name, shard->wall_ms / 1000, token, sizeof(token));
    struct json_writer writer = rest_json(shard);

    if (size < 0) {
        rest_error(conn, ERROR_INTERNAL, NULL);
        return;
    }
    JSON_WRITE(&writer, "{\"user_id\":");
    json_write_string(&writer, id);
    JSON_WRITE(&writer, ",\"username\":");
    json_write_string(&writer, name);
    JSON_WRITE(&writer, ",\"access_token\":\"");
    json_write_raw(&writer, (struct slice){token, (uint32_t)size});
    JSON_WRITE(&writer, "\",\"token_type\":\"Bearer\",\"expires_in\":");
    json_write_u64(&writer, shard->config->auth_token_ttl / 1000);
    JSON_WRITE(&writer, "}");
    rest_answer_json(conn, status, &writer);
}

static void signed_in(struct shard *shard, struct conn *conn, struct call *call,
                      const struct call_answer *answer)
{
    const struct persist_user *reply = answer->reply;
    const int16_t status = reply->head.status;
    const uint32_t good = call->limit; /* 201 or 200 */

    call_give(shard, call);
    if (conn == NULL) {
        return;
    }
    if (status == 0) {
        answer_signed_in(shard, conn, good, reply);
    } else if (status == -EEXIST) {
        rest_error(conn, ERROR_CONFLICT, "this username is taken");
    } else if (status == -EACCES) {
        rest_error(conn, ERROR_UNAUTHORIZED, "unknown username or wrong password");
    } else if (status == -EINVAL) {
        rest_error(conn, ERROR_BAD_REQUEST,
                   "username: 2-32 characters, no control characters, no blanks at its ends");
    } else {
        rest_error(conn, ERROR_UNAVAILABLE, NULL);
    }
    conn_resume(conn);
}

/* NULL, or what is wrong. A sign-in with a password that no account could have is wrong like any
 * other. */
static const char *read_credentials(const struct json_value *values, uint64_t seen,
                                    bool registering)
{
    const struct json_value *name = &values[FIELD_USERNAME];
    const struct json_value *password = &values[FIELD_PASSWORD];
    const struct json_value *display = &values[FIELD_DISPLAY_NAME];

    if ((seen >> FIELD_USERNAME & 1) == 0 || name->type != JSON_STRING ||
        name->string.count < NAME_CHARACTERS_MIN || name->string.count > NAME_CHARACTERS_MAX) {
        return "username: a string of 2-32 characters is needed";
    }
    if ((seen >> FIELD_PASSWORD & 1) == 0 || password->type != JSON_STRING ||
        password->string.size < (registering ? PASSWORD_BYTES_MIN : 1) ||
        password->string.size > PASSWORD_BYTES_MAX) {
        return "password: a string of 8-1024 bytes is needed";
    }
    if ((seen >> FIELD_DISPLAY_NAME & 1) != 0 && display->type != JSON_NULL &&
        (display->type != JSON_STRING || display->string.count > 64)) {
        return "display_name: a string of at most 64 characters";
    }
    return NULL;
}

static struct slice decode(const struct json_value *value, char *text, uint32_t capacity)
{
    const int size = json_string_decode(&value->string, text, capacity);
    return (struct slice){text, size > 0 ? (uint32_t)size : 0};
}

static void ask_store(struct rest *rest, enum persist_op op, uint32_t good)
{
    struct json_value values[FIELDS];
    uint64_t seen = 0;
    char name[USERNAME_MAX], password[PASSWORD_BYTES_MAX], display[256];
    struct slice tails[3] = {{0}};

    if (!rest_body(rest, field_names, FIELDS, values, &seen)) {
        return;
    }
    const char *complaint = read_credentials(values, seen, op == PERSIST_REGISTER);
    if (complaint != NULL) {
        rest_error(rest->conn, ERROR_BAD_REQUEST, complaint);
        return;
    }
    tails[0] = decode(&values[FIELD_USERNAME], name, sizeof(name));
    tails[1] = decode(&values[FIELD_PASSWORD], password, sizeof(password));
    if ((seen >> FIELD_DISPLAY_NAME & 1) != 0 && values[FIELD_DISPLAY_NAME].type == JSON_STRING) {
        tails[2] = decode(&values[FIELD_DISPLAY_NAME], display, sizeof(display));
    }
    struct call *call = rest_call(rest, signed_in);
    if (call == NULL) {
        return;
    }
    struct shard *shard = rest->conn->shard;
    const struct persist_user request = {.head = {.op = (uint16_t)op},
                                         .username_bytes = (uint16_t)tails[0].size,
                                         .password_bytes = (uint16_t)tails[1].size,
                                         .display_bytes = (uint16_t)tails[2].size};
    call->limit = good;
    if (!call_store(shard, call_token(shard, call), &request, sizeof(request), tails, 3)) {
        call_give(shard, call);
        rest_error(rest->conn, ERROR_UNAVAILABLE, NULL);
        conn_resume(rest->conn);
    }
}

static void post_register(struct rest *rest)
{
    ask_store(rest, PERSIST_REGISTER, 201);
}

static void post_login(struct rest *rest)
{
    ask_store(rest, PERSIST_LOGIN, 200);
}

const struct route rest_auth_routes[] = {
    {HTTP_POST, "/v1/auth/register", true, post_register},
    {HTTP_POST, "/v1/auth/login", true, post_login},
};
const uint32_t rest_auth_route_count = sizeof(rest_auth_routes) / sizeof(rest_auth_routes[0]);
