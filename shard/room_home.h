/*
 * room_home.h - what the home shard does with requests: the place where a message gets its seq.
 *
 * Walk:       from shard/room.c (room_handle); to fileio/journal.c, back in rooms_durable, to the
 *             answers.
 * Threads:    the home shard's.
 */
#pragma once

#include "shard/room.h"

/* Answers a request to a loaded room. */
void room_home_handle(struct shard *shard, struct room *room, const struct room_request *request);

/* The first event of a new room: that its owner is a member. False: it cannot be published now, or
 * the store knows no owner. */
bool room_home_begin(struct shard *shard, struct room *room);

/* Answers with an error. */
void room_refuse(struct shard *shard, const struct room_request *request, enum error_code error);

/* Brings the answer to its asker, here or on another shard. */
void room_answer(struct shard *shard, const struct room_answer *answer);

/* The same for who can wait; false: the ring to the asker is full. */
bool room_answer_try(struct shard *shard, const struct room_answer *answer);

/* Something that is not kept (typing), for a room's members on this shard but its sender, who are
 * not behind. */
void room_show_volatile(struct shard *shard, struct room *room, struct slice from,
                        struct slice text);
