/*
 * move_verify.c - both sides of a move, read wholly and compared. See move.h for N3.
 *
 * Each side is read by itself into a sum: of users, and for each room of its members and events.
 * Nothing of the copy's own knowledge is used. Events are summed in the order of seq; members and
 * users in any, for stores need not agree on an order of names.
 */
#include "persist/move_own.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* --- sums --- */

void move_sum_event(struct move_sum *sum, const struct record *event)
{
    const uint64_t numbers[] = {event->seq, event->at_ms, event->kind, event->flags,
                                event->content_digest};
    const struct slice parts[] = {
        {(const char *)sum->hash.bytes, sizeof(sum->hash.bytes)},
        {(const char *)numbers, sizeof(numbers)},
        {(const char *)event->key_digest, sizeof(event->key_digest)},
        event->user_id,
        event->body,
    };

    sum->hash = hash128_parts(parts, sizeof(parts) / sizeof(parts[0]));
    sum->count++;
    sum->last_seq = event->seq;
}

/* Adds halves: the order does not matter, and a row twice is not none. */
static void add(struct move_sum *sum, struct hash128 row)
{
    uint64_t total[2];
    uint64_t one[2];

    memcpy(total, sum->hash.bytes, sizeof(total));
    memcpy(one, row.bytes, sizeof(one));
    total[0] += one[0];
    total[1] += one[1];
    memcpy(sum->hash.bytes, total, sizeof(total));
    sum->count++;
}

void move_sum_member(struct move_sum *sum, const struct move_member *member)
{
    const uint64_t numbers[] = {member->role, member->joined_ms};
    const struct slice parts[] = {
        {(const char *)numbers, sizeof(numbers)}, member->user_id, member->username};

    add(sum, hash128_parts(parts, sizeof(parts) / sizeof(parts[0])));
}

void move_sum_user(struct move_sum *sum, const struct store_user *user)
{
    const struct slice parts[] = {
        {(const char *)&user->created_ms, sizeof(user->created_ms)},
        user->user_id,
        user->username,
        user->folded,
        user->display_name,
        user->password,
    };

    add(sum, hash128_parts(parts, sizeof(parts) / sizeof(parts[0])));
}

/* --- one side --- */

static void add_row(struct move_sum *sum, enum move_table table, const struct move_rows *rows,
                    uint32_t index)
{
    switch (table) {
    case MOVE_TABLE_USERS:
        move_sum_user(sum, &rows->users[index]);
        break;
    case MOVE_TABLE_MEMBERS:
        move_sum_member(sum, &rows->members[index]);
        break;
    case MOVE_TABLE_EVENTS:
        move_sum_event(sum, &rows->events[index]);
        break;
    }
}

/* The sum of a table, or of a room's part of it, in one store. */
static int sum_table(struct move *move, struct move_store *store, enum move_table table,
                     const struct move_room *room, struct move_sum *ret)
{
    struct move_cursor cursor = {0};
    struct move_sum sum = {0};
    int error = 0;

    while (error == 0 && !cursor.end) {
        move_rows_clear(move->rows);
        error = move_read(move, store, table, room, 0, &cursor, move->rows);
        for (uint32_t i = 0; error == 0 && i < move->rows->count; i++) {
            add_row(&sum, table, move->rows, i);
        }
        if (table == MOVE_TABLE_EVENTS && store == move->target) {
            move->progress.events += move->rows->count;
        }
        error = error < 0 ? error : move_go_on(move);
    }
    *ret = sum;
    return error;
}

static bool same_sum(const struct move_sum *a, const struct move_sum *b)
{
    return a->count == b->count && a->last_seq == b->last_seq && hash128_equal(a->hash, b->hash);
}

/* --- both --- */

static const char mend[] = "remove what was copied, or name an empty target, and move again";

static int compare_users(struct move *move)
{
    struct move_sum source;
    struct move_sum target;
    int error = sum_table(move, move->source, MOVE_TABLE_USERS, NULL, &source);

    error = error < 0 ? error : sum_table(move, move->target, MOVE_TABLE_USERS, NULL, &target);
    if (error == 0 && !same_sum(&source, &target)) {
        error = move_fail(move, -EUCLEAN,
                          "the copy is not right: the users differ: %" PRIu64 " in %s, %" PRIu64
                          " in %s, or the same with other contents; %s",
                          source.count, move->source->name, target.count, move->target->name, mend);
    }
    move->progress.users = source.count;
    return error;
}

static int tell_room(struct move *move, const struct move_room *room, const char *what,
                     const struct move_sum *source, const struct move_sum *target)
{
    uint64_t a;
    uint64_t b;

    memcpy(&a, source->hash.bytes, sizeof(a));
    memcpy(&b, target->hash.bytes, sizeof(b));
    return move_fail(move, -EUCLEAN,
                     "the copy is not right: the %s of the room %.*s differ: %s has %" PRIu64
                     " (last seq %" PRIu64 ", checksum %016" PRIx64 "), %s has %" PRIu64
                     " (last seq %" PRIu64 ", checksum %016" PRIx64 "); %s",
                     what, (int)room->room.room_id.size, room->room.room_id.data,
                     move->source->name, source->count, source->last_seq, a, move->target->name,
                     target->count, target->last_seq, b, mend);
}

static int compare_table(struct move *move, enum move_table table, const char *what,
                         const struct move_room *from, const struct move_room *to,
                         uint64_t *ret_count)
{
    struct move_sum source;
    struct move_sum target;
    int error = sum_table(move, move->source, table, from, &source);

    error = error < 0 ? error : sum_table(move, move->target, table, to, &target);
    if (error == 0 && !same_sum(&source, &target)) {
        error = tell_room(move, from, what, &source, &target);
    }
    *ret_count = source.count;
    return error;
}

static bool same_fields(const struct store_room *a, const struct store_room *b)
{
    return a->epoch == b->epoch && a->created_ms == b->created_ms &&
           a->members_max == b->members_max && a->visibility == b->visibility &&
           a->durability == b->durability && slice_equal(a->name, b->name);
}

static int compare_room(struct move *move, const struct move_room *from)
{
    const struct slice room_id = from->room.room_id;
    struct move_room to;
    uint64_t members = 0;
    uint64_t events = 0;
    int error = move_find_room(move, move->target, room_id, &to);

    if (error == -ENOENT) {
        return move_fail(move, -EUCLEAN, "the copy is not right: %s lacks the room %.*s; %s",
                         move->target->name, (int)room_id.size, room_id.data, mend);
    }
    if (error < 0) {
        return error;
    }
    const bool same = same_fields(&from->room, &to.room);
    to.room.room_id = room_id; /* these three are read again and again; what was found is not */
    to.room.name = from->room.name;
    error = compare_table(move, MOVE_TABLE_EVENTS, "events", from, &to, &events);
    if (error == 0 && !same) {
        error = move_fail(move, -EUCLEAN,
                          "the copy is not right: the room %.*s has another epoch, name, time or "
                          "setting in %s; %s",
                          (int)room_id.size, room_id.data, move->target->name, mend);
    }
    error =
        error < 0 ? error : compare_table(move, MOVE_TABLE_MEMBERS, "members", from, &to, &members);
    if (error == 0 && to.room.member_count != members) {
        error = move_fail(move, -EUCLEAN,
                          "the copy is not right: the room %.*s has %" PRIu64
                          " members, and says %" PRIu32 " in %s; %s",
                          (int)room_id.size, room_id.data, members, to.room.member_count,
                          move->target->name, mend);
    }
    move->progress.members += members;
    return error;
}

static int compare_rooms(struct move *move)
{
    struct move_cursor cursor = {0};
    int error = 0;

    while (error == 0 && !cursor.end) {
        error = move_read_rooms(move, move->source, &cursor, move->rooms);
        for (uint32_t i = 0; error == 0 && i < move->rooms->count; i++) {
            error = compare_room(move, &move->rooms->rooms[i]);
            move->progress.rooms += error == 0;
        }
    }
    return error;
}

static int count_rooms(struct move *move)
{
    struct move_cursor cursor = {0};
    uint64_t count = 0;
    int error = 0;

    while (error == 0 && !cursor.end) {
        error = move_read_rooms(move, move->target, &cursor, move->rooms);
        count += move->rooms->count;
    }
    if (error == 0 && count != move->progress.rooms) {
        error =
            move_fail(move, -EUCLEAN,
                      "the copy is not right: %s has %" PRIu64 " rooms, %s has %" PRIu64 "; %s",
                      move->source->name, move->progress.rooms, move->target->name, count, mend);
    }
    return error;
}

int move_verify(struct move *move)
{
    move->progress = (struct move_progress){.phase = MOVE_VERIFYING};
    int error = compare_users(move);
    error = error < 0 ? error : compare_rooms(move);
    return error < 0 ? error : count_rooms(move);
}
