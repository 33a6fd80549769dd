/*
 * store_sqlite.c - the embedded store: opening, and what happens to a batch.
 *
 * Write-ahead log (WAL) with synchronous=FULL: a commit returns after its frames and a commit mark
 * are synced, which is S1. The database file itself is written by checkpoints only, between
 * batches; a reader outside (a backup, the sqlite3 shell) disturbs none of it.
 *
 * Start-up is faster because one sync at its end does for all: replay_begin sets
 * synchronous=NORMAL, under which a commit only writes its frames, and a checkpoint still syncs the
 * log before it copies and the database before the log is used again. So a crash at any moment
 * leaves a sound database with some first part of the replay, and the journal that it came from is
 * still there. run_begin sets FULL again and commits once more: the sync of that commit is one of
 * the whole log file, and covers every frame before it
 * (https://www.sqlite.org/pragma.html#pragma_synchronous).
 *
 * The replay's transactions are large (persist.c): a room's newest page is written once for each,
 * and with thousands of rooms that is what the replay takes its time for. cache_spill bounds the
 * memory.
 *
 * Keyed messages of a room are a list in its events: each event names the last keyed one before it
 * (previous_key), so that the newest are found without an index, whose pages would be as many again
 * to write as those of the events.
 *
 * A room's last seq is not stored: it is that of its last event, so the two cannot differ. base_seq
 * is for a room whose events are gone (retention).
 */
#include "persist/store_sqlite.h"

#include "core/check.h"
#include "core/log.h"
#include "core/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCHEMA_VERSION = 1,
    APPLICATION_ID = 0x64616d73, /* "dams": what file(1) and we know the database by */
    ROOM_SETS = 8192,
    ROOM_WAYS = 8,
    BUSY_MS = 250,           /* how long somebody else's write lock is waited for */
    CHECKPOINT_PAGES = 4096, /* 16 MiB of log: about 40 ms of checkpoint */
    CHECKPOINT_IDLE_PAGES = 256,
    CHECKPOINT_REPLAY_PAGES = 65536, /* 256 MiB of log: the default journal fits without one */
    PATH_BYTES_MAX = 512,
};

static const char schema[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE rooms(number INTEGER PRIMARY KEY, room_id TEXT NOT NULL UNIQUE,"
    " epoch INTEGER NOT NULL, base_seq INTEGER NOT NULL DEFAULT 0, created_ms INTEGER NOT NULL,"
    " member_count INTEGER NOT NULL, members_max INTEGER NOT NULL, visibility INTEGER NOT NULL,"
    " durability INTEGER NOT NULL, renew INTEGER NOT NULL DEFAULT 0, name TEXT NOT NULL) STRICT;"
    "CREATE INDEX rooms_public ON rooms(room_id, name) WHERE visibility = 0;"
    "CREATE TABLE events(id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " previous_key INTEGER NOT NULL, content_digest INTEGER, key_digest BLOB,"
    " user_id TEXT NOT NULL, body BLOB NOT NULL) STRICT;"
    "CREATE TABLE members(number INTEGER NOT NULL, user_id TEXT NOT NULL, username TEXT NOT NULL,"
    " role INTEGER NOT NULL, joined_ms INTEGER NOT NULL, PRIMARY KEY(number, user_id))"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE users(user_id TEXT PRIMARY KEY, username TEXT NOT NULL,"
    " folded TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, password TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "PRAGMA application_id = 1684106611;"
    "PRAGMA user_version = 1;";
_Static_assert(APPLICATION_ID == 1684106611 && SCHEMA_VERSION == 1, "as the schema says");

#define ROOM_COLUMNS                                                                               \
    "number, epoch, base_seq, created_ms, member_count, members_max, visibility, durability, "     \
    "room_id, name"
#define USER_COLUMNS "user_id, username, display_name, password, created_ms"

static const char *const statements[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_ROOM_FIND] = "SELECT number, epoch, base_seq FROM rooms WHERE room_id = ?1",
    [SQL_ROOM_LAST] = "SELECT id, key_digest IS NOT NULL, previous_key FROM events"
                      " WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT 1",
    [SQL_EVENT_ADD] = "INSERT INTO events VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [SQL_MEMBER_ADD] = "INSERT OR IGNORE INTO members VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQL_MEMBER_ROLE] = "UPDATE members SET role = ?3, username = ?4"
                        " WHERE number = ?1 AND user_id = ?2",
    [SQL_MEMBER_REMOVE] = "DELETE FROM members WHERE number = ?1 AND user_id = ?2",
    [SQL_MEMBER_COUNT] = "UPDATE rooms SET member_count = member_count + ?2 WHERE number = ?1",
    [SQL_ROOM_RENEW] = "UPDATE rooms SET renew = 1 WHERE number = ?1",
    [SQL_EPOCHS] = "UPDATE rooms SET epoch = random() | 1, renew = 0"
                   " WHERE renew = 1 OR (?1 AND durability = 0) OR (?2 AND durability = 1)",
    [SQL_META_GET] = "SELECT value FROM meta WHERE name = ?1",
    [SQL_META_SET] = "REPLACE INTO meta VALUES(?1, ?2)",
    [SQL_ROOM_ADD] = "INSERT INTO rooms(room_id, epoch, created_ms, member_count, members_max,"
                     " visibility, durability, name) SELECT ?1, ?2, ?3, 1, ?4, ?5, ?6, ?7"
                     " WHERE (SELECT coalesce(max(number), 0) FROM rooms) < ?8",
    [SQL_ROOM_BY_ID] = "SELECT " ROOM_COLUMNS " FROM rooms WHERE room_id = ?1",
    [SQL_ROOM_BY_NUMBER] = "SELECT " ROOM_COLUMNS " FROM rooms WHERE number = ?1",
    [SQL_ROOMS_PUBLIC] = "SELECT number, room_id, name FROM rooms"
                         " WHERE visibility = 0 AND room_id > ?1 ORDER BY room_id",
    [SQL_MEMBERS] = "SELECT role, user_id, username FROM members WHERE number = ?1",
    [SQL_KEY] = "SELECT previous_key, content_digest, at_ms, key_digest FROM events WHERE id = ?1",
    [SQL_HISTORY_UP] = "SELECT id, body FROM events WHERE id BETWEEN ?1 AND ?2"
                       " ORDER BY id LIMIT ?3",
    [SQL_HISTORY_DOWN] = "SELECT id, body FROM events WHERE id BETWEEN ?1 AND ?2"
                         " ORDER BY id DESC LIMIT ?3",
    [SQL_USER_ADD] = "INSERT INTO users VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [SQL_USER_BY_ID] = "SELECT " USER_COLUMNS " FROM users WHERE user_id = ?1",
    [SQL_USER_BY_NAME] = "SELECT " USER_COLUMNS " FROM users WHERE folded = ?1",
};

static struct store_sqlite *of(struct store *store)
{
    return (struct store_sqlite *)store; /* base is its first member */
}

/* --- statements --- */

int store_sqlite_error(int code)
{
    switch (code & 0xff) { /* the rest of an extended code says where, not what */
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return -EACCES;
    default:
        return -EIO;
    }
}

void store_sqlite_bind_number(sqlite3_stmt *sql, int index, uint64_t number)
{
    (void)sqlite3_bind_int64(sql, index, (sqlite3_int64)number);
}

void store_sqlite_bind_text(sqlite3_stmt *sql, int index, struct slice text)
{
    (void)sqlite3_bind_text(sql, index, text.size > 0 ? text.data : "", (int)text.size,
                            SQLITE_STATIC);
}

void store_sqlite_bind_bytes(sqlite3_stmt *sql, int index, struct slice bytes)
{
    (void)sqlite3_bind_blob(sql, index, bytes.size > 0 ? bytes.data : "", (int)bytes.size,
                            SQLITE_STATIC);
}

int store_sqlite_run(sqlite3_stmt *sql)
{
    const int code = sqlite3_step(sql);
    (void)sqlite3_reset(sql);
    return store_sqlite_error(code);
}

int store_sqlite_next(sqlite3_stmt *sql)
{
    const int code = sqlite3_step(sql);
    if (code == SQLITE_ROW) {
        return 1;
    }
    (void)sqlite3_reset(sql);
    return store_sqlite_error(code);
}

uint64_t store_sqlite_number(sqlite3_stmt *sql, int column)
{
    return (uint64_t)sqlite3_column_int64(sql, column);
}

struct slice store_sqlite_slice(sqlite3_stmt *sql, int column)
{
    const void *data = sqlite3_column_blob(sql, column);
    return (struct slice){data, (uint32_t)sqlite3_column_bytes(sql, column)};
}

void store_sqlite_keep_begin(struct store_sqlite *store)
{
    store->text_used = 0;
}

struct slice store_sqlite_keep(struct store_sqlite *store, sqlite3_stmt *sql, int column)
{
    const struct slice from = store_sqlite_slice(sql, column);
    const uint32_t room = STORE_SQLITE_TEXT_MAX - store->text_used;
    /* Longer than we ever wrote: somebody edited the database. Cut, so that it stays bounded. */
    const struct slice kept = {store->text + store->text_used, from.size < room ? from.size : room};

    if (kept.size > 0) {
        memcpy(store->text + store->text_used, from.data, kept.size);
    }
    store->text_used += kept.size;
    return kept;
}

/* --- the room table --- */

int store_sqlite_find_end(struct store_sqlite *store, uint64_t number, uint64_t base_seq,
                          struct store_sqlite_end *ret)
{
    sqlite3_stmt *sql = store->sql[SQL_ROOM_LAST];
    const uint64_t first = store_sqlite_first(number);

    store_sqlite_bind_number(sql, 1, first);
    store_sqlite_bind_number(sql, 2, first + STORE_SEQ_MAX);
    const int found = store_sqlite_next(sql);
    if (found < 0) {
        return found;
    }
    *ret = (struct store_sqlite_end){.last_seq = base_seq};
    if (found > 0) {
        const uint64_t last = store_sqlite_number(sql, 0) - first;
        ret->last_seq = last > base_seq ? last : base_seq;
        ret->last_key = store_sqlite_number(sql, 1) != 0 ? last : store_sqlite_number(sql, 2);
        (void)sqlite3_reset(sql);
    }
    return 0;
}

/* Fills the slot from the database: 0, -ENOENT or -errno. */
static int slot_load(struct store_sqlite *store, struct slice room_id,
                     struct store_sqlite_slot *slot)
{
    sqlite3_stmt *sql = store->sql[SQL_ROOM_FIND];

    store_sqlite_bind_text(sql, 1, room_id);
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found < 0 ? found : -ENOENT;
    }
    const uint64_t number = store_sqlite_number(sql, 0);
    const uint64_t epoch = store_sqlite_number(sql, 1);
    const uint64_t base_seq = store_sqlite_number(sql, 2);
    (void)sqlite3_reset(sql);
    slot->generation = 0; /* what it held is gone, even if the next step fails */
    const int error = store_sqlite_find_end(store, number, base_seq, &slot->end);
    if (error < 0) {
        return error;
    }
    slot->generation = store->generation;
    slot->number = number;
    slot->epoch = epoch;
    slot->room_bytes = (uint8_t)room_id.size;
    memcpy(slot->room_id, room_id.data, room_id.size);
    return 0;
}

/* The slot of a room, filled in: 0, -ENOENT or -errno. Takes the place of the neighbour that was
 * not looked at for longest: nothing is lost by it, slots hold nothing that the database has not.
 */
static int slot_find(struct store_sqlite *store, struct slice room_id,
                     struct store_sqlite_slot **ret)
{
    const uint64_t hash = hash_bytes(&store->hash_key, room_id.data, room_id.size);
    struct store_sqlite_slot *set = &store->slots[hash % ROOM_SETS * ROOM_WAYS];
    struct store_sqlite_slot *slot = set;

    for (int way = 0; way < ROOM_WAYS; way++) {
        struct store_sqlite_slot *other = &set[way];
        if (other->generation == store->generation &&
            slice_equal(room_id, (struct slice){other->room_id, other->room_bytes})) {
            other->used = ++store->clock;
            *ret = other;
            return 0;
        }
        slot = other->used < slot->used ? other : slot;
    }
    const int error = slot_load(store, room_id, slot);
    if (error == 0) {
        slot->used = ++store->clock;
        *ret = slot;
    }
    return error;
}

/* --- batches --- */

static int store_sqlite_begin(struct store *store)
{
    return store_sqlite_run(of(store)->sql[SQL_BEGIN]);
}

static void store_sqlite_rollback(struct store *base)
{
    struct store_sqlite *store = of(base);

    store->generation++; /* slots may tell of records that are gone now */
    if (sqlite3_get_autocommit(store->db) == 0) {
        /* SQLite may have rolled back by itself; if this fails too, begin will say so. */
        (void)store_sqlite_run(store->sql[SQL_ROLLBACK]);
    }
}

#ifdef DAMSO_SEAMS
/* DAMSO_FAULT_STORE=slow:<ms a batch> or full:<first commit that fails>[:<how many fail>]. Counted
 * from 1, over commits and their repetitions. */
static int fault(struct store_sqlite *store)
{
    const char *wish = getenv("DAMSO_FAULT_STORE"); /* tidy: allow, a test build */
    unsigned long long first = 0;
    unsigned long long count = 10;

    store->commits++;
    if (wish != NULL && sscanf(wish, "slow:%llu", &first) == 1) {
        (void)sqlite3_sleep((int)first);
        return 0;
    }
    if (wish != NULL && sscanf(wish, "full:%llu:%llu", &first, &count) >= 1) {
        return store->commits >= first && store->commits - first < count ? -ENOSPC : 0;
    }
    return 0;
}
#else
static int fault(const struct store_sqlite *store)
{
    (void)store;
    return 0;
}
#endif

static int store_sqlite_commit(struct store *base)
{
    struct store_sqlite *store = of(base);
    const int error = fault(store);
    return error < 0 ? error : store_sqlite_run(store->sql[SQL_COMMIT]);
}

static int count_members(struct store_sqlite *store, uint64_t number, int change)
{
    sqlite3_stmt *sql = store->sql[SQL_MEMBER_COUNT];

    store_sqlite_bind_number(sql, 1, number);
    (void)sqlite3_bind_int(sql, 2, change);
    return store_sqlite_run(sql);
}

static int member_join(struct store_sqlite *store, uint64_t number, const struct record *record)
{
    sqlite3_stmt *sql = store->sql[SQL_MEMBER_ADD];

    store_sqlite_bind_number(sql, 1, number);
    store_sqlite_bind_text(sql, 2, record->user_id);
    store_sqlite_bind_text(sql, 3, record->username);
    store_sqlite_bind_number(sql, 4, record->role);
    store_sqlite_bind_number(sql, 5, record->at_ms);
    const int error = store_sqlite_run(sql);
    if (error < 0) {
        return error;
    }
    if (sqlite3_changes(store->db) > 0) {
        return count_members(store, number, 1);
    }
    sql = store->sql[SQL_MEMBER_ROLE];
    store_sqlite_bind_number(sql, 1, number);
    store_sqlite_bind_text(sql, 2, record->user_id);
    store_sqlite_bind_number(sql, 3, record->role);
    store_sqlite_bind_text(sql, 4, record->username);
    return store_sqlite_run(sql);
}

static int member_leave(struct store_sqlite *store, uint64_t number, const struct record *record)
{
    sqlite3_stmt *sql = store->sql[SQL_MEMBER_REMOVE];

    store_sqlite_bind_number(sql, 1, number);
    store_sqlite_bind_text(sql, 2, record->user_id);
    const int error = store_sqlite_run(sql);
    return error == 0 && sqlite3_changes(store->db) > 0 ? count_members(store, number, -1) : error;
}

static int add_event(struct store_sqlite *store, uint64_t id, uint64_t previous_key,
                     const struct record *record)
{
    sqlite3_stmt *sql = store->sql[SQL_EVENT_ADD];
    const struct slice digest = {(const char *)record->key_digest, sizeof(record->key_digest)};

    store_sqlite_bind_number(sql, 1, id);
    store_sqlite_bind_number(sql, 2, record->at_ms);
    store_sqlite_bind_number(sql, 3, record->kind);
    store_sqlite_bind_number(sql, 4, previous_key);
    if ((record->flags & RECORD_KEYED) != 0) {
        store_sqlite_bind_number(sql, 5, record->content_digest);
        store_sqlite_bind_bytes(sql, 6, digest);
    } else {
        (void)sqlite3_bind_null(sql, 5);
        (void)sqlite3_bind_null(sql, 6);
    }
    store_sqlite_bind_text(sql, 7, record->user_id);
    store_sqlite_bind_bytes(sql, 8, record->body);
    return store_sqlite_run(sql);
}

/* The record and what follows from it. The batch is the caller's to roll back if it fails. */
static int add_record(struct store_sqlite *store, const struct store_sqlite_slot *slot,
                      const struct record *record)
{
    const uint64_t id = store_sqlite_first(slot->number) + record->seq;
    const int error = add_event(store, id, slot->end.last_key, record);

    if (error == 0 && record->kind == RECORD_JOINED) {
        return member_join(store, slot->number, record);
    }
    if (error == 0 && record->kind == RECORD_LEFT) {
        return member_leave(store, slot->number, record);
    }
    return error;
}

static int store_sqlite_append(struct store *base, const struct record *record, bool holes_taken)
{
    struct store_sqlite *store = of(base);
    struct store_sqlite_slot *slot;
    int error = slot_find(store, record->room_id, &slot);

    if (error < 0) {
        return error == -ENOENT ? STORE_PASSED : error;
    }
    if (record->epoch != slot->epoch || record->seq <= slot->end.last_seq) {
        return STORE_PASSED;
    }
    const bool hole = record->seq != slot->end.last_seq + 1;
    if ((hole && !holes_taken) || record->seq > STORE_SEQ_MAX) {
        return STORE_HOLE;
    }
    if (hole) {
        store_sqlite_bind_number(store->sql[SQL_ROOM_RENEW], 1, slot->number);
        error = store_sqlite_run(store->sql[SQL_ROOM_RENEW]);
    }
    error = error < 0 ? error : add_record(store, slot, record);
    if (error < 0) {
        return error;
    }
    slot->end.last_seq = record->seq;
    if ((record->flags & RECORD_KEYED) != 0) {
        slot->end.last_key = record->seq;
    }
    return STORE_STORED;
}

/* --- checkpoints --- */

static int note_commit(void *context, sqlite3 *db, const char *name, int pages)
{
    struct store_sqlite *store = context;

    (void)db, (void)name;
    store->wal_pages = (uint32_t)pages;
    return SQLITE_OK;
}

static void store_sqlite_tend(struct store *base, bool idle)
{
    struct store_sqlite *store = of(base);
    const bool due = store->wal_pages >= store->checkpoint_at ||
                     (idle && store->wal_pages >= CHECKPOINT_IDLE_PAGES &&
                      store->checkpoint_at <= CHECKPOINT_PAGES);
    int pages = 0;
    int copied = 0;

    if (!due || sqlite3_get_autocommit(store->db) == 0) {
        return;
    }
    const int code =
        sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &copied);
    if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY) {
        log_warning("checkpoint of the store failed error=\"%s\"", sqlite3_errmsg(store->db));
    }
    /* A reader outside, or an error, may have kept a part in the log: then the next attempt is when
     * as much again has come, not at every batch. */
    const bool whole = code == SQLITE_OK && copied == pages;
    store->checkpoint_at = CHECKPOINT_PAGES + (whole ? 0 : store->wal_pages);
    store->wal_pages = whole ? 0 : store->wal_pages;
}

/* --- start and stop of a run --- */

static int set_pragma(struct store_sqlite *store, const char *pragma)
{
    return store_sqlite_error(sqlite3_exec(store->db, pragma, NULL, NULL, NULL));
}

static int store_sqlite_replay_begin(struct store *base)
{
    of(base)->checkpoint_at = CHECKPOINT_REPLAY_PAGES;
    return set_pragma(of(base), "PRAGMA synchronous = NORMAL; PRAGMA cache_spill = 65536");
}

/* Whether meta has that value under the name: 1, 0, or -errno. */
static int meta_is(struct store_sqlite *store, struct slice name, struct slice value)
{
    sqlite3_stmt *sql = store->sql[SQL_META_GET];

    store_sqlite_bind_text(sql, 1, name);
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found;
    }
    const bool same = slice_equal(store_sqlite_slice(sql, 0), value);
    (void)sqlite3_reset(sql);
    return same;
}

static int meta_set(struct store_sqlite *store, struct slice name, struct slice value)
{
    store_sqlite_bind_text(store->sql[SQL_META_SET], 1, name);
    store_sqlite_bind_text(store->sql[SQL_META_SET], 2, value);
    return store_sqlite_run(store->sql[SQL_META_SET]);
}

static int renew_epochs(struct store_sqlite *store, struct slice boot_id)
{
    const int clean = meta_is(store, SLICE("clean"), SLICE("1"));
    const int same_boot = meta_is(store, SLICE("boot_id"), boot_id);

    if (clean < 0 || same_boot < 0) {
        return clean < 0 ? clean : same_boot;
    }
    (void)sqlite3_bind_int(store->sql[SQL_EPOCHS], 1, clean == 0);
    (void)sqlite3_bind_int(store->sql[SQL_EPOCHS], 2, clean == 0 && same_boot == 0);
    const int error = store_sqlite_run(store->sql[SQL_EPOCHS]);
    if (error == 0 && sqlite3_changes(store->db) > 0) {
        log_notice("rooms whose last events may be lost have a new epoch rooms=%d",
                   sqlite3_changes(store->db));
    }
    return error;
}

static int begin_run(struct store_sqlite *store, struct slice boot_id)
{
    int error = renew_epochs(store, boot_id);

    if (error == 0) {
        error = meta_set(store, SLICE("clean"), SLICE("0"));
    }
    if (error == 0) {
        error = meta_set(store, SLICE("boot_id"), boot_id);
    }
    return error == 0 ? store_sqlite_commit(&store->base) : error;
}

static int store_sqlite_run_begin(struct store *base, struct slice boot_id)
{
    struct store_sqlite *store = of(base);
    int error = set_pragma(store, "PRAGMA synchronous = FULL; PRAGMA cache_spill = OFF");

    error = error == 0 ? store_sqlite_begin(base) : error;
    if (error < 0) {
        return error;
    }
    error = begin_run(store, boot_id);
    if (error < 0) {
        store_sqlite_rollback(base);
        return error;
    }
    store->generation++;                        /* slots hold the old epochs */
    (void)sqlite3_db_release_memory(store->db); /* the pages that the replay held */
    store->checkpoint_at = CHECKPOINT_PAGES;
    return 0;
}

static int store_sqlite_run_end(struct store *base)
{
    return meta_set(of(base), SLICE("clean"), SLICE("1"));
}

/* --- opening --- */

static void store_sqlite_close(struct store *base)
{
    struct store_sqlite *store = of(base);

    for (int i = 0; i < SQL_COUNT; i++) {
        (void)sqlite3_finalize(store->sql[i]);
    }
    (void)sqlite3_close(store->db); /* the last one out brings the log into the database */
}

static const struct store_ops ops = {
    .replay_begin = store_sqlite_replay_begin,
    .run_begin = store_sqlite_run_begin,
    .run_end = store_sqlite_run_end,
    .begin = store_sqlite_begin,
    .commit = store_sqlite_commit,
    .rollback = store_sqlite_rollback,
    .append = store_sqlite_append,
    .room_create = store_sqlite_room_create,
    .room_read = store_sqlite_room_read,
    .members_read = store_sqlite_members_read,
    .keys_read = store_sqlite_keys_read,
    .rooms_read = store_sqlite_rooms_read,
    .history_read = store_sqlite_history_read,
    .user_create = store_sqlite_user_create,
    .user_by_id = store_sqlite_user_by_id,
    .user_by_name = store_sqlite_user_by_name,
    .tend = store_sqlite_tend,
    .close = store_sqlite_close,
};

static int prepare(struct store_sqlite *store)
{
    for (int i = 0; i < SQL_COUNT; i++) {
        const int code = sqlite3_prepare_v3(store->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                                            &store->sql[i], NULL);
        if (code != SQLITE_OK) {
            return store_sqlite_error(code);
        }
    }
    return 0;
}

/* The integer that a query gives, for pragmas: 0 or -errno. */
static int ask(struct store_sqlite *store, const char *query, int64_t *ret)
{
    sqlite3_stmt *sql = NULL;
    int code = sqlite3_prepare_v2(store->db, query, -1, &sql, NULL);

    if (code == SQLITE_OK) {
        code = sqlite3_step(sql);
    }
    if (code == SQLITE_ROW) {
        *ret = sqlite3_column_int64(sql, 0);
    }
    (void)sqlite3_finalize(sql);
    return store_sqlite_error(code);
}

/* Makes the tables in an empty database; refuses one that is not ours or of a newer damso. */
static int settle_schema(struct store_sqlite *store, const char *path, char *ret_why,
                         size_t why_size)
{
    int64_t version = 0;
    int64_t application = 0;
    int64_t tables = 0;
    int error = ask(store, "PRAGMA user_version", &version);

    error = error == 0 ? ask(store, "PRAGMA application_id", &application) : error;
    error = error == 0 ? ask(store, "SELECT count(*) FROM sqlite_schema", &tables) : error;
    if (error < 0) {
        return error;
    }
    if (tables == 0) {
        error = set_pragma(store, "BEGIN IMMEDIATE");
        error = error == 0 ? set_pragma(store, schema) : error;
        return error == 0 ? set_pragma(store, "COMMIT") : error;
    }
    if (application != APPLICATION_ID) {
        (void)snprintf(ret_why, why_size,
                       "%s is a database of another program: name another directory in server.data",
                       path);
        return -EMEDIUMTYPE;
    }
    if (version != SCHEMA_VERSION) {
        (void)snprintf(ret_why, why_size,
                       "%s has schema %" PRId64 ", this damsod knows up to %d: "
                       "start the newer damsod that wrote it",
                       path, version, SCHEMA_VERSION);
        return -EPROTO;
    }
    return 0;
}

static int configure(struct store_sqlite *store, uint64_t cache_bytes)
{
    char cache[64];
    const char *const pragmas[] = {
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA wal_autocheckpoint = 0",
        "PRAGMA journal_size_limit = 67108864", /* after a large log the file shrinks to this */
        "PRAGMA mmap_size = 0",                 /* a read error is an error, not a signal */
        "PRAGMA temp_store = MEMORY",
        /* A batch stays in memory until it is committed, so a full disk is met by commit only and
         * what was appended can still be read (S2). */
        "PRAGMA cache_spill = OFF",
        cache,
    };

    (void)snprintf(cache, sizeof(cache), "PRAGMA cache_size = -%" PRIu64, cache_bytes / 1024);
    for (size_t i = 0; i < sizeof(pragmas) / sizeof(pragmas[0]); i++) {
        const int error = set_pragma(store, pragmas[i]);
        if (error < 0) {
            return error;
        }
    }
    store->checkpoint_at = CHECKPOINT_PAGES;
    (void)sqlite3_wal_hook(store->db, note_commit, store);
    return 0;
}

static int open_database(struct store_sqlite *store, const struct store_options *options,
                         char *ret_why, size_t why_size)
{
    char path[PATH_BYTES_MAX];
    const int length = snprintf(path, sizeof(path), "%s/damso.db", options->directory);

    if (length < 0 || (size_t)length >= sizeof(path)) {
        (void)snprintf(ret_why, why_size, "server.data is too long a path");
        return -ENAMETOOLONG;
    }
    ret_why[0] = '\0';
    int error = store_sqlite_error(sqlite3_open_v2(path, &store->db,
                                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                                       SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                                                   NULL));
    if (error == 0) {
        (void)sqlite3_busy_timeout(store->db, BUSY_MS);
        error = settle_schema(store, path, ret_why, why_size);
    }
    error = error == 0 ? configure(store, options->cache_bytes) : error;
    error = error == 0 ? prepare(store) : error;
    if (error < 0 && ret_why[0] == '\0') {
        const char *mend = error == -EUCLEAN
                               ? "it is damaged: restore a backup, or copy the directory and run "
                                 "'sqlite3 damso.db .recover' there"
                           : error == -EBUSY ? "another program holds it: stop that first"
                                             : "see that its directory can be written and has room";
        (void)snprintf(ret_why, why_size, "%s: %s; %s", path, sqlite3_errmsg(store->db), mend);
    }
    return error;
}

struct tables {
    struct store_sqlite *store;
    struct store_sqlite_slot *slots;
    struct store_sqlite_key *keys;
};

static struct tables reserve(const struct store_options *options)
{
    return (struct tables){
        .store = mem_alloc(options->plan, "store", sizeof(struct store_sqlite)),
        .slots = mem_reserve(options->plan, "store room table", sizeof(struct store_sqlite_slot),
                             (size_t)ROOM_SETS * ROOM_WAYS),
        .keys = mem_reserve(options->plan, "store keys", sizeof(struct store_sqlite_key),
                            options->keys_max),
    };
}

void store_sqlite_plan(const struct store_options *options)
{
    (void)reserve(options);
    (void)mem_reserve(options->plan, "store page cache", options->cache_bytes, 1);
}

int store_sqlite_open(const struct store_options *options, struct store **ret, char *ret_why,
                      size_t why_size)
{
    const struct tables tables = reserve(options);
    struct store_sqlite *store = tables.store;

    CHECK(why_size > 0);
    if (store == NULL || tables.slots == NULL || tables.keys == NULL) {
        (void)snprintf(ret_why, why_size, "no memory for the store's tables");
        return -ENOMEM;
    }
    *store = (struct store_sqlite){.base = {.ops = &ops},
                                   .slots = tables.slots,
                                   .generation = 1,
                                   .keys = tables.keys,
                                   .keys_max = options->keys_max};
    os_random(&store->hash_key, sizeof(store->hash_key));
    const int error = open_database(store, options, ret_why, why_size);
    if (error < 0) {
        store_sqlite_close(&store->base);
        return error;
    }
    *ret = &store->base;
    return 0;
}
