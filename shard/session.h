/*
 * session.h - the protocol damso.v1 over a WebSocket: requests to rooms, and answers, in words.
 *
 * Walk:       from shard/conn_input.c (session_message); to shard/room.c (room_ask); answers come
 *             back through shard/call.c.
 * Threads:    its shard's.
 */
#pragma once

#include "core/ws.h"
#include "shard/auth.h"
#include "shard/call.h"
#include "shard/conn.h"
#include "shard/room.h"
#include "shard/user.h"

/* One message of a client. */
void session_message(struct conn *conn, enum ws_opcode opcode, const char *text, uint32_t size);

/* The connection ends: its rooms and its user are given up. */
void session_closed(struct conn *conn);

/* Output has gone out: what waited for that goes on. */
void session_drained(struct conn *conn);

/* Nobody has said who this is within timeouts.connect. */
void session_idle(struct conn *conn);

/* Who it is, from the token of the upgrade or of connect: answers connected, or closes. id: raw
 * JSON or empty. */
void session_connect(struct conn *conn, struct slice token, struct slice id);

/* A user whom this shard does not know yet, or knows only by a token: asks the store. done as in
 * call.h, whose reply is struct persist_user. False: cannot be asked now. */
bool session_ensure_user(struct conn *conn, const struct user *user, call_done done,
                         struct slice id);

/* Takes over the store's answer to that: 0, or the error. */
enum error_code session_ensured(struct shard *shard, const struct call_answer *answer);

/* Writes the range of a page of history by what a client gave; both protocols share it. */
struct history_wish {
    bool has_before, has_after, descending;
    uint64_t before_seq, after_seq;
    uint32_t limit;
};
void session_history_range(const struct history_wish *wish, struct room_request *request);

/* Appends "events":[...],"next_cursor":...,"epoch":"...","last_seq":N of an answered page. */
void session_write_page(struct json_writer *writer, const struct room_answer *answer);

/* The digests of a keyed message, for both protocols. */
void session_digest(struct room_request *request, struct slice key);

/* 1-64 printable ASCII characters. */
bool session_key_valid(struct slice key);
