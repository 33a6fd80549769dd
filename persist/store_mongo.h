/*
 * store_mongo.h - our collections in MongoDB, and what is done with them.
 *
 *   events      _id: Binary(room_id, seq as 8 bytes big-endian), room_id, seq, epoch, mid, kind,
 *               at, user_id, body, and for a keyed message key (Binary) and digest
 *   rooms       _id: room_id, epoch, name, visibility, durability, members_max, member_count,
 *               created_at, owner_id, owner_name, renew
 *   members     _id: "room_id/user_id", room_id, user_id, username, role (0: has left), seq (of
 *               the event that said so), joined_at
 *   users       _id: user_id, username, folded (unique), display_name, password, created_at
 *   quarantine  _id: Binary(event's _id, mid), reason ("conflict", "invalid", "too large" or
 *               "refused"), text (the server's words), record (Binary), room_id, seq, at (when)
 *   meta        _id: "schema" {version}, "owner" {owner, since}, "run" {clean, boot_id,
 *               server_id}
 *
 * Numbers are int64, clean and renew are bool, names and bodies are UTF-8 text. Those of ours that
 * use 64 bits (epoch, mid, digest) are stored with the same bits.
 *
 * Within a room all event ids have one length, so that Binary's order (length, subtype, bytes:
 * https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/) is the order of seq,
 * and one index gives uniqueness and history. mid is the message's identity: hash128 of the
 * record's bytes, first 8 of them, so that a record that is sent again is known from another one
 * that took its place.
 *
 * Walk:       from persist/flush.c (events), persist/tail.c (reads) and persist/pipeline.c (start);
 *             to persist/mongo.h. Files: store_mongo.c (opening, schema, owner, run),
 *             store_mongo_write.c (events, quarantine), store_mongo_member.c (members that
 *             change), store_mongo_read.c (rooms, members, keys, history), store_mongo_user.c
 *             (rooms and users made, accounts read).
 * Threads:    a store belongs to one thread; each has a client of the pool while it works.
 * Ownership:  slices that come out are good until the callback returns, or the next call to the
 *             same store.
 * Units:      sizes in bytes, times in ms since 1970.
 *
 * Every call: 0 or as said, or -EAGAIN (try again later), -EACCES (no right, wrong password),
 * -EINVAL and others (not mended by trying again); store_mongo_why says it in words.
 *
 * Invariants: (Y1) every write may be repeated: events by _id and mid, members by seq, the rest by
 *                  _id.
 *             (Y2) a member document never goes back to an older seq.
 */
#pragma once

#include "persist/mongo.h"
#include "persist/store.h"

enum { STORE_MONGO_SCHEMA = 1, STORE_MONGO_ID_MAX = 64 + 8 };

struct store_mongo;

/* A store over the pool, its memory from the plan (not sealed yet; keys_max as in store_options). 0
 * or -ENOMEM. */
NODISCARD int store_mongo_open(struct mongo *mongo, uint32_t keys_max, struct mem_plan *plan,
                               struct store_mongo **ret);
/* Gives its client back to the pool. NULL is nothing. */
void store_mongo_close(struct store_mongo *store);

/* Its line in a MEM_COUNT plan. */
void store_mongo_plan(uint32_t keys_max, struct mem_plan *plan);

/* The last failure in words, with hosts and database, without secrets. */
const char *store_mongo_why(const struct store_mongo *store);

/* --- start --- */

/* Makes what is missing (collections with validators, indexes, the schema's version), and brings
 * validators up to date. Repeatable; two at the same time do no harm. -EUCLEAN: a schema of another
 * version, or indexes of ours that mean something else; -EACCES: the user lacks a right, and
 * store_mongo_why names which and the role that has it (dbOwner, or readWrite with dbAdmin). A
 * server without validators or j: true is used all the same where that is said in the docs. */
NODISCARD int store_mongo_prepare(struct store_mongo *store);

/* Takes over: a number above every one before (findAndModify, majority). Whoever has a lower one is
 * fenced. */
NODISCARD int store_mongo_claim(struct store_mongo *store, uint64_t *ret_owner);

/* 0, or -ESTALE: another damsod took over, or the database was emptied or put back. */
NODISCARD int store_mongo_check_owner(struct store_mongo *store, uint64_t owner);

/* As store_ops.run_begin: gives a new epoch to rooms marked for one (renew), and unless the
 * last run ended by run_end to those whose durability may have lost their tail. server_id names the
 * data directory: if the last run was another one's and did not end cleanly, its journal is not
 * here, so every room begins anew; ret_other (may be NULL): that damsod may still be at work. */
NODISCARD int store_mongo_run_begin(struct store_mongo *store, struct slice boot_id,
                                    struct slice server_id, bool *ret_other);
NODISCARD int store_mongo_run_end(struct store_mongo *store);
/* Gives the room a new epoch: a part of its log is lost. Before anybody is served. */
NODISCARD int store_mongo_renew(struct store_mongo *store, struct slice room_id);

/* --- writing --- */

enum store_mongo_result {
    STORE_MONGO_STORED = 0,      /* in events, now or before, with our mid */
    STORE_MONGO_QUARANTINED = 1, /* refused as a document; kept in quarantine; told in the log */
    STORE_MONGO_CONFLICT = 2,    /* another message has its _id; ours is kept in quarantine */
    STORE_MONGO_UNKEPT = 3, /* refused, and quarantine did not take it either: keep the journal */
};

/* Stores 1 to MONGO_BULK_MAX records (bytes as in core/record.h, of any rooms) with one unordered
 * bulk, then the members that they change (and the rooms' member_count). 0: ret_results holds an
 * enum store_mongo_result for each. < 0: unknown, send the same again (Y1). A record that cannot be
 * decoded is UNKEPT. -EINVAL and the like: the server refuses whatever it is given, each document
 * alone too; nothing was set aside, and the journal must be kept. */
NODISCARD int store_mongo_insert(struct store_mongo *store, const struct slice *records,
                                 uint32_t count, uint8_t *ret_results);

/* --- reading: as in struct store_ops, of what is in MongoDB --- */

/* The room's highest seq, 0 without any; also when the room is not there. */
NODISCARD int store_mongo_last_seq(struct store_mongo *store, struct slice room_id,
                                   uint64_t *ret_seq);
/* Epoch of a room: 0 or -ENOENT. */
NODISCARD int store_mongo_epoch(struct store_mongo *store, struct slice room_id,
                                uint64_t *ret_epoch);

/* The owner counts as a member (ROLE_OWNER) until a member document says otherwise. last_seq comes
 * from events. member_count is members_read's. */
NODISCARD int store_mongo_room_read(struct store_mongo *store, struct slice room_id,
                                    struct store_room *ret);
/* Calls row for members with a role, and if with_left for those who left too (role ROLE_NONE).
 * seq: of the event that said so. */
typedef int (*store_mongo_member_row)(void *context, const struct store_member *row, uint64_t seq);
NODISCARD int store_mongo_members_read(struct store_mongo *store, struct slice room_id,
                                       bool with_left, store_mongo_member_row row, void *context);
NODISCARD int store_mongo_keys_read(struct store_mongo *store, struct slice room_id, uint32_t limit,
                                    store_key_row row, void *context);
NODISCARD int store_mongo_rooms_read(struct store_mongo *store, struct slice query,
                                     struct slice cursor, uint32_t limit, store_room_row row,
                                     void *context);
/* Events of a range in the order asked for. A seq that is missing between two others is looked for
 * in quarantine, and its body shown from there. -ENOENT: no such room (asked only if nothing was
 * found). */
NODISCARD int store_mongo_history_read(struct store_mongo *store, const struct store_range *range,
                                       store_entry_row row, void *context);

/* --- rooms and users made: durable when they return 0 --- */

NODISCARD int store_mongo_room_create(struct store_mongo *store, const struct store_room *room,
                                      struct slice user_id, struct slice username); /* -EEXIST */
NODISCARD int store_mongo_user_create(struct store_mongo *store,
                                      const struct store_user *user); /* -EEXIST */
NODISCARD int store_mongo_user_by_id(struct store_mongo *store, struct slice user_id,
                                     struct store_user *ret); /* -ENOENT */
NODISCARD int store_mongo_user_by_name(struct store_mongo *store, struct slice folded,
                                       struct store_user *ret); /* -ENOENT */
